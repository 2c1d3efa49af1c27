"""The keys of a bucket: where they are, and how they are sealed into a setting.

They come from the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN), from systemd's
credentials, or sealed from a setting; else the role of the machine has to do. They are never in a URL, in plain in
a setting, in an argument or a message.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from local_mcp_gateway.errors import ConfigProblem, UsageProblem
from local_mcp_gateway.frozen import frozen
from local_mcp_gateway.service.secrets.keyring import Keyring, seal_setting
from local_mcp_gateway.store import SettingValue

if TYPE_CHECKING:
    from local_mcp_gateway.config import Settings

_KEYS: Final = {
    "AWS_ACCESS_KEY_ID": "access-key-id",
    "AWS_SECRET_ACCESS_KEY": "secret-access-key",
}
"""Variables of the environment, and the ends of the names of credentials."""
SETTINGS: Final = {"replica": "bucket_keys", "backup": "copy_bucket_keys"}
"""The setting with the sealed keys, by section."""


@frozen
class BucketKeys:
    """Where the keys of one bucket are: in the environment, in systemd's credentials, or sealed in a setting."""

    section: str
    """`replica` or `backup`: begins the names of systemd's credentials."""
    sealed: SettingValue
    keyring: Keyring

    @classmethod
    def of(cls, settings: Settings, section: str) -> BucketKeys:
        """Return those of the replica or of the copies of backups; raises ConfigProblem for a plain setting."""
        key = SETTINGS[section]
        value = getattr(getattr(settings, section), key)
        sealed = SettingValue(f"{section}.{key}", value, f"run `secrets bucket {section}` again")
        if value and not sealed.sealed:
            raise ConfigProblem(
                f"{sealed.name} is not sealed.",
                hint=f"`secrets bucket {section}` seals the keys and prints the line.",
                key=sealed.name,
            )
        return cls(section, sealed, Keyring.of(settings))

    def variables(self, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
        """Return the keys, as variables; none if the environment has its own, or nothing has any.

        Raises SealedValueProblem where the setting does not open.
        """
        if any(name in environment for name in _KEYS):
            return {}
        if folder := environment.get("CREDENTIALS_DIRECTORY", ""):
            with suppress(OSError):
                return {
                    name: Path(folder, f"{self.section}-{ending}").read_text("utf-8").strip()
                    for name, ending in _KEYS.items()
                }
        if not self.sealed.value:
            return {}
        opened = self.keyring.keys().open(self.sealed).value
        return dict(zip(_KEYS, opened.split("\n"), strict=True))


def seal_keys(settings: Settings, section: str, key_id: str, secret: str) -> tuple[str, str]:
    """Return the name and the sealed value of the setting for these keys; raises UsageProblem, NoSecretsKey."""
    given = (key_id.strip(), secret.strip())
    if not all(given) or any(text.split() != [text] for text in given):
        raise UsageProblem(
            "The keys of a bucket are two words: the key's id and its secret.",
            hint="Give them on two lines, or at the two questions.",
        )
    name = f"{section}.{SETTINGS[section]}"
    sealed = seal_setting(settings, SettingValue(name, "\n".join(given), ""))
    return name, sealed.value
