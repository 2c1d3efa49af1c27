"""Record, as text, what a person sees: the service in a real user manager, and work in dev mode.

    python docs/recordings/make.py            # as root: the user manager runs in namespaces of its own

Writes service.md and dev-mode.md next to this file. Each command has to end with the exit code that its
caption names, or nothing is written. Times and process ids differ from run to run, so the pages are
recorded by hand; a test looks through them for refusals that no caption names.
"""

from __future__ import annotations

import io
import shutil
import socket
import subprocess
import sys
import tempfile
from datetime import datetime
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))

from local_mcp_gateway.log import AT, LEVEL, configure  # noqa: E402
from tests.harness import GatewayProcess, MigrationFolder, Place, new_place  # noqa: E402
from tests.service.user_manager import MANAGER, UserManager, user_manager  # noqa: E402

COMMAND = str(Path(sys.executable).with_name("local-mcp-gateway"))
UNIT = "local-mcp-gateway"


class Page:
    """A page of commands and what they printed, with this machine's paths taken out."""

    def __init__(self, title: str, intro: str, hidden: dict[str, str]) -> None:
        self._lines = [f"# {title}", "", intro, ""]
        self._hidden = hidden

    def say(self, sentence: str) -> None:
        self._lines += [sentence, ""]

    def block(self, *texts: str) -> None:
        text = "\n".join(text.rstrip() for text in texts if text.strip())
        for path, shown in self._hidden.items():
            text = text.replace(path, shown)
        self._lines += ["```console", text, "```", ""]

    def write(self, name: str) -> None:
        (HERE / name).write_text("\n".join(self._lines).rstrip() + "\n")


# --- the service --------------------------------------------------------------------------------


def record_service() -> None:
    with tempfile.TemporaryDirectory(dir="/home", prefix="recording-") as place:
        home = Path(place)
        shutil.copytree(ROOT / "migrations", home / "migrations")
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        config = home / ".config" / "local-mcp-gateway"
        config.mkdir(parents=True)
        (config / "gateway.toml").write_text(
            f'[gateway]\nport = {port}\n[migrations]\nfolder = "{home}/migrations"\n'
        )
        hidden = {
            COMMAND: UNIT,
            str(home): "~",
            str(ROOT): "~/local-mcp-gateway",
            f"127.0.0.1:{port}": "127.0.0.1:3001",
        }
        intro = (
            f"Recorded in a real systemd user manager ({systemd_version()}), by `docs/recordings/make.py`;"
            " the port, one that was free, is shown as 3001."
        )
        page = Page("The service, from install to refusal", intro, hidden)
        with user_manager(home) as manager:
            operate(page, manager, MigrationFolder(home / "migrations"))
        page.write("service.md")


def systemd_version() -> str:
    said = subprocess.run([MANAGER, "--version"], check=True, capture_output=True, text=True)
    return said.stdout.split()[1]


def operate(page: Page, manager: UserManager, folder: MigrationFolder) -> None:
    def show(*command: str, code: int = 0) -> None:
        done = manager.run(*command, check=False)
        assert done.code == code, (command, done)
        told = f"(exit code {code})" if code else ""
        page.block(f"$ {' '.join(command)}", done.stdout, done.stderr, told)

    def systemctl(verb: str, code: int = 0) -> None:
        show("systemctl", "--user", verb, UNIT, code=code)

    page.say("Install it: the unit is written, started and waited for, and its start is shown.")
    show(COMMAND, "service", "install")
    show("systemctl", "--user", "show", UNIT, "-p", "ActiveState,SubState,StatusText,NRestarts")
    page.say(
        "A server with a token: the database and its backups have it sealed, the server in plain."
    )
    time_server = ("--", sys.executable, "-m", "mcp_server_time")
    show(COMMAND, "server", "add", "time", "--env", "TOKEN=hunter2", *time_server)
    show(COMMAND, "server", "show", "time")
    page.say("A migration is added, and the service reloads. No request is lost.")
    tag = folder.add("add_tags", "CREATE TABLE tags (id INTEGER PRIMARY KEY, name TEXT NOT NULL)")
    systemctl("reload")
    page.say("In the journal every event is an entry with fields of its own.")
    manager.entries(f"MIGRATION={tag}")  # they are there
    show("journalctl", f"MIGRATION={tag}", "-o", "cat", "--no-pager")
    page.say("A broken one: the reload fails, and the service goes on as it was.")
    broken = folder.add(
        "words", "CREATE TABLE words (id INTEGER PRIMARY KEY)", "CREAT INDEX w ON words (id)"
    )
    show(COMMAND, "reload", code=5)
    page.say("A restart is refused: it is not tried in a loop, and the status has the reason.")
    systemctl("restart", code=1)
    show(
        "systemctl", "--user", "show", UNIT, "-p", "ActiveState,StatusText,NRestarts,ExecMainStatus"
    )
    show(COMMAND, "startup")
    page.say("Fixed, and running again.")
    folder.write(broken, "CREATE TABLE words (id INTEGER PRIMARY KEY);\n")
    systemctl("restart")
    show(COMMAND, "startup")
    show(COMMAND, "service", "uninstall")


# --- dev mode -----------------------------------------------------------------------------------


def record_dev_mode() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        shutil.copytree(ROOT / "migrations", root / "migrations")
        place = new_place(root)
        hidden = {str(root / "data"): "~/data", str(root): "~/project"}
        intro = (
            "What `serve --dev` says while migrations are worked on; by `docs/recordings/make.py`."
        )
        page = Page("Work in dev mode", intro, hidden)
        quiet = {"LMG_DEV__RELOAD": "false"}
        with place.serve("--dev", env=quiet) as gateway:
            work(page, place, Teller(page, gateway))
            gateway.stop()
        page.say(
            "It is stopped; a row is written, and the column renamed in `0010_labels.sql` while it is off."
        )
        place.write("INSERT INTO labels (name) VALUES ('while off')")
        labels = "CREATE TABLE labels (id INTEGER PRIMARY KEY, title TEXT);\n"
        place.folder.write("0010_labels", labels)
        with place.serve("--dev", env=quiet) as gateway:
            Teller(page, gateway).until("dev.watching")
            gateway.stop()
        page.say("That start, afterwards:")
        page.block("$ local-mcp-gateway startup", place.run("startup").stdout)
        page.write("dev-mode.md")


class Teller:
    """Puts on the page what one gateway says, line by line."""

    def __init__(self, page: Page, gateway: GatewayProcess) -> None:
        self._page = page
        self._gateway = gateway
        self._told = 0

    def until(self, name: str, tag: str | None = None) -> None:
        """Show every line up to the next event of this name (and about this migration)."""

        def wanted(event: dict[str, object]) -> bool:
            return tag is None or event["tag"] == tag

        found = self._gateway.wait_for(name, after=self._told, where=wanted)
        upto = self._gateway.events.index(found, self._told) + 1
        new = self._gateway.events[self._told : upto]
        self._page.block(*(line for event in new if (line := rendered(event))))
        self._told = upto


def work(page: Page, place: Place, gateway: Teller) -> None:
    folder = place.folder
    page.say("The start.")
    gateway.until("dev.watching")
    page.say("`0010_notes.sql` is saved: backed up, rehearsed, applied; the gateway never stops.")
    path = folder.write("0010_notes", "CREATE TABLE notes (id INTEGER PRIMARY KEY, body TEXT);\n")
    gateway.until("migration.hot_applied")
    page.say("`0011_words.sql` is saved with a typo in its second statement.")
    words = "CREATE TABLE words (id INTEGER PRIMARY KEY);\n\nCREAT INDEX words_id ON words (id);\n"
    folder.write("0011_words", words)
    gateway.until("migration.hot_refused")
    page.say("The typo is fixed.")
    folder.write("0011_words", words.replace("CREAT ", "CREATE "))
    gateway.until("migration.hot_applied")
    page.say(
        "A row is written into `notes`, then a column added in `0010_notes.sql`, though it was applied:"
        " both files are reverted and replayed, and the row is carried over."
    )
    place.write("INSERT INTO notes (body) VALUES ('written by hand')")
    notes = "CREATE TABLE notes (id INTEGER PRIMARY KEY, pinned INTEGER DEFAULT 0, body TEXT);\n"
    folder.write("0010_notes", notes)
    gateway.until("migration.hot_applied", "0011_words")
    page.say("Its column `body` is renamed in the file: that one value has no place any more.")
    folder.write("0010_notes", notes.replace("body", "text"))
    gateway.until("migration.hot_applied", "0011_words")
    page.say(
        "The very first migration is edited, which created the database: there is no backup from before it,"
        " so everything is replayed on an empty one."
    )
    first = (folder.path / "0000_initial.sql").read_text()
    edited = first.replace("description TEXT,", "description TEXT,\n    colour TEXT,", 1)
    folder.write("0000_initial", edited)
    gateway.until("migration.hot_applied", "0011_words")
    page.say("That edit is reverted, as by `git checkout`.")
    folder.write("0000_initial", first)
    gateway.until("migration.hot_applied", "0011_words")
    page.say("`0011_words.sql` is deleted.")
    (folder.path / "0011_words.sql").unlink()
    gateway.until("migration.rewound")
    page.say("Another branch is checked out: `0010_notes` is gone, `0010_labels` is there.")
    entries = [entry for entry in folder.journal() if entry["tag"] != "0010_notes"]
    path.unlink()
    folder.write("0010_labels", "CREATE TABLE labels (id INTEGER PRIMARY KEY, name TEXT);\n")
    folder.write_journal(entries)
    gateway.until("migration.hot_applied", "0010_labels")


def rendered(event: dict[str, object]) -> str:
    """Return an event as the console shows it."""
    if event["level"] == "debug":
        return ""
    at = datetime.fromisoformat(str(event["timestamp"])).timestamp()
    fields = {k: v for k, v in event.items() if k not in ("timestamp", "level", "event")}
    name, level = str(event["event"]), str(event["level"])
    stream = io.StringIO()
    configure("console", "info", stream)(name, **{**fields, AT: at, LEVEL: level})
    return stream.getvalue()


if __name__ == "__main__":
    record_dev_mode()
    record_service()
