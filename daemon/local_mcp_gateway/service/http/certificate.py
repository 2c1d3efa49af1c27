"""The certificate that the gateway shows to its clients, from files that its owner keeps.

Who issues it renews the files. A reload reads them again: new connections get the new certificate, those that
are open go on with the one of their handshake.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from local_mcp_gateway.errors import ConfigProblem
from local_mcp_gateway.regular_file import read_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.x509 import Certificate as Parsed

SOON: Final = timedelta(days=14)
"""How long before its end a certificate is reported. Issuers renew theirs earlier than that."""


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """What a certificate says about itself."""

    names: tuple[str, ...]
    """The host names and IP addresses that it is for."""
    ends_at: datetime
    serial: int
    """The number that distinguishes it from others of the same issuer."""

    @property
    def ends_soon(self) -> bool:
        """Tell whether its owner should look after a new one."""
        return self.ends_at - datetime.now(UTC) < SOON


class ServerCertificate:
    """The certificate of a running gateway."""

    def __init__(self, file: Path, key_file: Path) -> None:
        """Read both files; raises ConfigProblem if clients could not use what is in them."""
        self.files = file, key_file
        self.context, self.facts = self._read()
        """The context is for the listening socket, the facts are of the certificate shown from now on."""
        self._current = self.context
        self.context.sni_callback = self._choose

    def read_again(self) -> None:
        """Show what is in the files now to new connections; on ConfigProblem the old one stays."""
        self._current, self.facts = self._read()

    def as_fields(self) -> dict[str, object]:
        """Return the fields of the log's events about it."""
        file, facts = self.files[0], self.facts
        ends = f"{facts.ends_at:%Y-%m-%d %H:%M} UTC"
        return {"certificate": str(file), "names": list(facts.names), "ends": ends}

    def _choose(self, connection: ssl.SSLObject, _: str | None, __: ssl.SSLContext) -> None:
        """Choose the certificate of a handshake, also of one that names no host."""
        connection.context = self._current

    def _read(self) -> tuple[ssl.SSLContext, CertificateFacts]:
        file, key_file = self.files
        facts = check_certificate(file, key_file)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(file, key_file)
        except (OSError, ValueError) as error:  # a key that is too short, for example
            raise _unusable(file, f"OpenSSL refuses it: {error}") from None
        return context, facts


def check_certificate(file: Path, key_file: Path) -> CertificateFacts:
    """Read a certificate and its key; raises ConfigProblem if clients could not use them now."""
    first, facts = _parse(file)
    now = datetime.now(UTC)
    if first.not_valid_after_utc <= now:
        raise _unusable(file, f"it expired on {first.not_valid_after_utc:%Y-%m-%d %H:%M} UTC")
    if first.not_valid_before_utc > now:
        begins = f"{first.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
        raise _unusable(file, f"it is valid from {begins} on, and it is {now:%Y-%m-%d %H:%M} UTC")
    _require_key_of(first, key_file)
    return facts


def names_in(file: Path) -> tuple[str, ...]:
    """Return the names that a certificate is for; none if it cannot be read."""
    try:
        return _parse(file)[1].names
    except ConfigProblem:
        return ()


def _parse(file: Path) -> tuple[Parsed, CertificateFacts]:
    from cryptography import x509  # only with a certificate

    text = _content(file, "certificate")
    try:
        first = x509.load_pem_x509_certificates(text)[0]
        extension = first.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        names = extension.value.get_values_for_type(x509.DNSName)
        names += map(str, extension.value.get_values_for_type(x509.IPAddress))
    except x509.ExtensionNotFound:
        names = []
    except ValueError:
        raise _unusable(file, "the file has no certificate in PEM") from None
    return first, CertificateFacts(tuple(names), first.not_valid_after_utc, first.serial_number)


def _require_key_of(certificate: Parsed, key_file: Path) -> None:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(_content(key_file, "key of the certificate"), None)
    except TypeError:
        raise ConfigProblem(
            f"The key in {key_file} has a passphrase, which nobody types when the gateway starts.",
            hint=f"Write one without: `openssl pkey -in {key_file} -out FILE`, mode 0600.",
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigProblem(
            f"The file {key_file} has no private key in PEM.",
            hint="Set gateway.tls_key to the key's file.",
        ) from None
    if key.public_key() != certificate.public_key():
        raise ConfigProblem(
            f"The key in {key_file} is not the key of the certificate.",
            hint="gateway.tls_cert and gateway.tls_key have to be files of one certificate.",
        )


def _content(file: Path, what: str) -> bytes:
    try:
        return read_bytes(file)
    except OSError as error:
        raise ConfigProblem(
            f"The {what}, {file}, cannot be read: {error.strerror or error}.",
            hint="Correct gateway.tls_cert and gateway.tls_key, or let this user read the files.",
        ) from None


def _unusable(file: Path, why: str) -> ConfigProblem:
    return ConfigProblem(
        f"The certificate {file} cannot be used: {why}.",
        hint="Put a valid one there, or leave gateway.tls_cert empty for http.",
    )
