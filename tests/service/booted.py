"""Boot this machine's own system twice on a throw-away overlay, to see the service linger.

    python -m tests.service.booted        as root; needs systemd-container and libpam-systemd

Lingering needs logind, so a whole boot. In the first one a user without a session installs the service
with `--linger`; in the second nobody logs in, and the service has to be there, with the key of a server's
token loaded as a credential. Nothing outside of the overlay is written.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

USER = "lab-user"
UID = 4242
COMMAND = Path(sys.executable).with_name("local-mcp-gateway")
PLAIN = Path(__file__).parents[1] / "gateway" / "servers" / "plain.py"
UNIT = """
[Unit]
Requires=basic.target
Wants=systemd-logind.service systemd-user-sessions.service
After=systemd-logind.service systemd-user-sessions.service
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'sh -ex /lab.sh >/lab.log 2>&1; echo $? >/lab.code'
ExecStopPost=/bin/systemctl --no-block poweroff
"""
AS_USER = f"runuser -u {USER} -- env HOME=/home/{USER} XDG_RUNTIME_DIR=/run/user/{UID}"
FIRST = f"""
useradd -m -u {UID} -s /bin/sh {USER}
systemctl start user@{UID}.service
{AS_USER} {COMMAND} service install --linger
{AS_USER} {COMMAND} service status --json >/installed.json
{AS_USER} {COMMAND} server add plain --env TOKEN=hunter2 -- {sys.executable} {PLAIN}
{AS_USER} {COMMAND} doctor --json >/doctor.json || true
"""
SECOND = f"""
until {AS_USER} systemctl --user is-active local-mcp-gateway; do sleep 0.2; done
test -z "$(loginctl list-sessions --no-legend)"
{AS_USER} {COMMAND} service status --json >/lingering.json
{AS_USER} {COMMAND} db status
mv /home/{USER}/.config/local-mcp-gateway.key /home/{USER}/away
pid=$({AS_USER} {COMMAND} call pid)
tr '\\0' '\\n' </proc/$pid/environ | grep -x TOKEN=hunter2
{AS_USER} {COMMAND} service uninstall
"""


@contextmanager
def overlay() -> Iterator[Path]:
    """Yield this machine's root with a layer on top that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="local-mcp-gateway-boot-") as place:
        for name in ("upper", "work", "root"):
            Path(place, name).mkdir()
        layers = f"lowerdir=/,upperdir={place}/upper,workdir={place}/work"
        root = Path(place, "root")
        run("mount", "-t", "overlay", "overlay", "-o", layers, str(root))
        try:
            yield root
        finally:
            run("umount", str(root))


def boot(root: Path, script: str) -> None:
    """Boot, run the script as root, power off; exit with its log unless it ended well."""
    (root / "etc/systemd/system/lab.service").write_text(UNIT)
    (root / "lab.sh").write_text(script)
    (root / "lab.code").unlink(missing_ok=True)
    command = ("systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--boot")
    target = ("--machine=lab", f"--directory={root}", "systemd.unit=lab.service")
    with suppress(subprocess.TimeoutExpired):
        subprocess.run(
            [*command, *target],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=120,
        )
    code = root / "lab.code"
    if not code.exists() or code.read_text().strip() != "0":
        log = root / "lab.log"
        sys.exit(log.read_text() if log.exists() else "the system did not boot")


def doctor(root: Path) -> list[dict[str, str]]:
    checks: list[dict[str, str]] = json.loads((root / "doctor.json").read_text())["findings"]
    return checks


def run(*command: str) -> None:
    subprocess.run(command, check=True)


def main() -> None:
    if shutil.which("systemd-nspawn") is None:
        sys.exit("booted: apt-get install systemd-container libpam-systemd")
    with overlay() as root:
        # The user has to be able to read the program, wherever this clone and its Python are.
        for path in (Path(__file__).resolve(), Path(sys.executable).resolve()):
            for folder in path.parents:
                (root / folder.relative_to("/")).chmod(0o755)
        boot(root, FIRST)
        installed = json.loads((root / "installed.json").read_text())
        assert (installed["state"], installed["linger"]) == ("active", True), installed
        (found,) = (check for check in doctor(root) if check["check"] == "service")
        assert found["state"] == "ok", found
        boot(root, SECOND)
        lingering = json.loads((root / "lingering.json").read_text())
        assert (lingering["state"], lingering["linger"]) == ("active", True), lingering
        assert (root / f"home/{USER}/.local-mcp-gateway-data/local-mcp-gateway.db").exists()
    sys.stdout.write(
        "booted twice: the service lingers, has its key, and its data outlives the uninstall\n"
    )


if __name__ == "__main__":
    main()
