"""Bad inputs and the sentence that answers each: what is wrong and where, and below it what to do."""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.harness import Place, new_place

pytestmark = pytest.mark.e2e

INPUTS: tuple[tuple[str, int, str, str], ...] = (
    ("frobnicate", 2, "There is no command `frobnicate`.", "See `local-mcp-gateway --help`."),
    (
        "status",
        2,
        "There is no command `status`. Did you mean `db status`, `replica status` or `service status`?",
        "See `local-mcp-gateway --help`.",
    ),
    (
        "db stauts",
        2,
        "There is no command `stauts`. Did you mean `db status`?",
        "See `local-mcp-gateway db --help`.",
    ),
    (
        "secrets rotat",
        2,
        "There is no command `rotat`. Did you mean `secrets rotate`?",
        "See `local-mcp-gateway secrets --help`.",
    ),
    (
        "completion",
        2,
        "Missing argument 'SHELL'. Choose from: bash, zsh, fish.",
        "See `local-mcp-gateway completion --help`.",
    ),
    (
        "db status --jsn",
        2,
        "There is no option `--jsn`. Did you mean `--json`?",
        "See `local-mcp-gateway db status --help`.",
    ),
    (
        "--database '' db status",
        2,
        "--database is empty.",
        "Give a value, or leave the option out.",
    ),
    (
        "--migrations '' db status",
        2,
        "--migrations is empty.",
        "Give a value, or leave the option out.",
    ),
    ("--config '' db status", 2, "--config is empty.", "Give a value, or leave the option out."),
    (
        "--database folder db status",
        7,
        "HERE/folder is a folder, not a database file.",
        "Give the file itself with --database or DATABASE_PATH.",
    ),
    (
        "--database /dev/null db migrate",
        7,
        "/dev/null is a device, not a database file.",
        "Give the file itself with --database or DATABASE_PATH.",
    ),
    (
        "--database pipe db status",
        7,
        "HERE/pipe is a named pipe, not a database file.",
        "Give the file itself with --database or DATABASE_PATH.",
    ),
    (
        "--database file:x.db?mode=ro db status",
        7,
        "command line: `database.path` cannot be 'file:x.db?mode=ro': it is a path, not a URL.",
        "Write x.db.",
    ),
    (
        "--database file:///srv/x.db db migrate",
        7,
        "command line: `database.path` cannot be 'file:///srv/x.db': it is a path, not a URL.",
        "Write /srv/x.db.",
    ),
    (
        "--database sqlite:///x.db db status",
        7,
        "command line: `database.path` cannot be 'sqlite:///x.db': it is a path, not a URL.",
        "Write x.db.",
    ),
    (
        "--database zero.db db migrate",
        6,
        "HERE/zero.db is not a SQLite database.",
        "Give another path with --database, or move this file away.",
    ),
    (
        "--database no/where/x.db db migrate",
        7,
        "The folder HERE/no/where of the database does not exist.",
        "Create the folder or give another place with --database or DATABASE_PATH.",
    ),
    (
        "--database g.db/x.db db migrate",
        7,
        "HERE/g.db is a file, not the folder of a database.",
        "Give the file itself with --database or DATABASE_PATH.",
    ),
    (
        "--config missing.toml db status",
        7,
        "The configuration file missing.toml does not exist.",
        "Give an existing file with --config, or leave the option out.",
    ),
    (
        "--config folder db status",
        7,
        "The configuration file folder cannot be read: it is a folder.",
        "Correct the value and start again; `config show` lists every setting.",
    ),
    (
        "--config bin.toml db status",
        7,
        "The configuration file bin.toml is not UTF-8 text.",
        "Correct the value and start again; `config show` lists every setting.",
    ),
    (
        "--config key.toml db status",
        7,
        "key.toml: there is no setting `gateway.prot`.",
        "Did you mean `gateway.port`?",
    ),
    (
        "--config out.toml db status",
        7,
        "out.toml: the key `port` is outside of a section.",
        "Put it under one of the sections",
    ),
    (
        "--migrations missing db migrate",
        7,
        "There is no migrations folder HERE/missing.",
        "Give the folder with --migrations, or create it with `db generate`.",
    ),
    (
        "--migrations letter db migrate",
        7,
        "HERE/letter is a file, not a migrations folder.",
        "Give the folder with --migrations, or create it with `db generate`.",
    ),
    (
        "--log-level loud db status",
        2,
        "Invalid value for '--log-level': 'loud' is not one of 'debug', 'info', 'warning', 'error'.",
        "See `local-mcp-gateway --help`.",
    ),
    (
        "serve --port 99999",
        2,
        "Invalid value for '--port': 99999 is not in the range 0<=x<=65535.",
        "See `local-mcp-gateway serve --help`.",
    ),
    (
        "reload",
        2,
        "No gateway is running on HERE/g.db.",
        "Start one with `serve`, or apply what is pending with `db migrate`.",
    ),
    (
        "open",
        2,
        "No gateway is running on HERE/g.db.",
        "Start one with `serve`; `db studio` shows a database without one.",
    ),
    (
        "db migrate --to 9999_nothing",
        2,
        "There is no migration `9999_nothing` in the folder.",
        "`db status` lists the tags; give one of them.",
    ),
    (
        "db down --steps 0",
        2,
        "Invalid value for '--steps': 0 is not in the range x>=1.",
        "See `local-mcp-gateway db down --help`.",
    ),
    (
        "db down --to nothing",
        2,
        "nothing is not applied, so nothing can go back to it.",
        "See `db status`.",
    ),
    (
        "db restore nothing",
        2,
        "There is no backup 'nothing' of HERE/g.db.",
        "See `db backup list` for the names.",
    ),
    (
        "db repair",
        2,
        "Give one of --accept-edited TAG, --mark-applied TAG and --reindex.",
        "See --help for what this command takes.",
    ),
    (
        "db repair --accept-edited 0000_initial",
        2,
        "0000_initial is not an applied migration whose file was edited.",
        "See `db status`.",
    ),
    ("db seed missing.sql", 2, "There is no seed file missing.sql.", "Check the path."),
    (
        "db seed bad.sql",
        5,
        'bad.sql, line 1: near "SELEC": syntax error.',
        "Correct the seed and run it again; the database is unchanged.",
    ),
    (
        "db generate --schema nothing",
        2,
        "There is no schema module nothing.",
        "Give a dotted name, a .py file, a .sql file, a snapshot or a database with --schema.",
    ),
    ("server add", 2, "Missing argument 'NAME'.", "See `local-mcp-gateway server add --help`."),
    (
        "server add x",
        2,
        "The server 'x' needs a command or a URL, and not both.",
        "`server add NAME -- COMMAND ARGS…` or `server add NAME URL`.",
    ),
    (
        "server add 'a b' -- true",
        2,
        "'a b' cannot be the name of a server.",
        "Use up to 64 letters, digits, dots, dashes and underscores; begin with a letter or digit.",
    ),
    (
        "server add x --url nonsense",
        2,
        "The URL of server 'x' is 'nonsense', which is not one of http or https.",
        "Give a URL such as https://HOST/mcp or http://HOST:PORT/mcp.",
    ),
    (
        "server add x --url http://h:99999/mcp",
        2,
        "The URL of server 'x' is 'http://h:99999/mcp', which has no port from 1 to 65535.",
        "Give a URL such as https://HOST/mcp or http://HOST:PORT/mcp.",
    ),
    (
        "server add x --url http://127.0.0.1:3001/mcp",
        2,
        "The server 'x' is this gateway itself, which would list itself without end.",
        "Add the servers that you want behind it.",
    ),
    (
        "server add clock -- true",
        2,
        "There is a server 'clock' already.",
        "Choose another name, or change it with `server edit`.",
    ),
    ("server add x --env =y -- true", 2, "--env '=y' has no name.", "Write --env KEY=VALUE."),
    ("server add x --env A -- true", 2, "--env A has no value.", "Write --env A=VALUE."),
    (
        "server add x --ca missing.pem --url https://x",
        2,
        "Invalid value for '--ca': Path 'missing.pem' does not exist.",
        "See `local-mcp-gateway server add --help`.",
    ),
    ("server show nothing", 2, "There is no server 'nothing'.", "See `server list`."),
    ("server edit clock", 2, "Give at least one change to 'clock'.", "See `server edit --help`."),
    (
        "server remove clock",
        2,
        "Nothing was done: it was not confirmed.",
        "Run it again with --yes, or type the name that it asks for.",
    ),
    (
        "server test clock",
        1,
        "Server 'clock' does not work: it exited with code 0.",
        "Check the command or URL with `server show`, then try `server test`.",
    ),
    (
        "server login clock",
        2,
        "The server 'clock' is a command, and nobody signs in to it.",
        "Give it what it needs with `server edit --env`.",
    ),
    (
        "server approve clock nothing",
        2,
        "The tool 'nothing' of server 'clock' is not waiting for an approval.",
        "See `server show clock`.",
    ),
    (
        "server import missing.json",
        2,
        "missing.json cannot be read: No such file or directory.",
        "Give a JSON file with `mcpServers`.",
    ),
    ("server import five.json", 2, "The file holds no list of MCP servers.", "It must look like"),
    (
        "server import folder",
        2,
        "folder cannot be read: it is a folder.",
        "Give a JSON file with `mcpServers`.",
    ),
    (
        "server list --watch",
        2,
        "--watch redraws a terminal, and the output does not go to one.",
        "Leave --watch out, and run the command again when needed.",
    ),
    (
        "profile add 'a/b'",
        2,
        "'a/b' cannot be the name of a profile.",
        "Use up to 64 letters, digits, dots, dashes and underscores; begin with a letter or digit.",
    ),
    (
        "profile add work",
        2,
        "There is a profile 'work' already.",
        "Choose another name, or change it with `profile edit`.",
    ),
    (
        "db rehearse --on nowhere.db",
        2,
        "There is no database at nowhere.db.",
        "Give another file with --on.",
    ),
    ("db drop nothing", 2, "There is no migration `nothing` in", "`db status` lists the tags."),
    ("profile remove nothing", 2, "There is no profile 'nothing'; there is work.", ""),
    ("profile edit work", 2, "Give at least one change to 'work'.", "See `profile edit --help`."),
    ("server remove nothing", 2, "There is no server 'nothing'.", "See `server list`."),
    ("token revoke nothing", 2, "There is no token 'nothing'.", "See `token list`."),
    ("profile add p nothing", 2, "There is no server 'nothing'.", "See `server list`."),
    (
        "profile use nothing",
        2,
        "There is no profile 'nothing'; there is work.",
        "Give another name.",
    ),
    (
        "profile tool work clock echo",
        2,
        "Give what to change about 'echo', or --reset, but not both.",
        "`--hide`, `--show`, `--rename NEW`, `--description TEXT` or `--reset`.",
    ),
    ("call nothing", 1, "The call of nothing failed:", ""),
    (
        "call echo x",
        2,
        "The argument 'x' has no value.",
        "Write KEY=VALUE, or @FILE for a JSON object of all arguments.",
    ),
    ("call echo @nowhere.json", 2, "nowhere.json cannot be read: No such file or directory.", ""),
    (
        "call echo --arguments '[1]'",
        2,
        "--arguments '[1]' is not a JSON object.",
        "See --help for what this command takes.",
    ),
    (
        "tools --profile nothing",
        2,
        "There is no profile 'nothing'; there is work.",
        "Give another name.",
    ),
    ("connect --undo", 2, "Which client?", "Known are claude-code,"),
    (
        "connect claude",
        2,
        "There is no client `claude`. Did you mean `claude-code` or `claude-desktop`?",
        "Known are claude-code,",
    ),
    ("connect cursor --name ''", 2, "--name is empty.", "Give a value, or leave the option out."),
    ("db restore --copy-from ''", 2, "--copy-from is empty.", "Give a value, or leave the option"),
    (
        "connect Goos",
        2,
        "There is no client `Goos`. Did you mean `goose`?",
        "Known are claude-code,",
    ),
    (
        "connect cursor --profile nothing",
        2,
        "There is no profile 'nothing'; there is work.",
        "Give another name.",
    ),
    (
        "stdio --url nonsense",
        2,
        "--url nonsense is not a valid address: it has no http:// or https:// and host.",
        "Write http://HOST:PORT, or https://…",
    ),
    (
        "logs --since yesterdayish",
        2,
        "--since 'yesterdayish' is not a time.",
        "Write 10m, 2h, 1d or 2026-01-31T12:00.",
    ),
    (
        "logs --calls --follow",
        2,
        "--calls and --follow cannot be given together.",
        "`logs --follow --event call.finished` does.",
    ),
    (
        "startup --last 0",
        2,
        "Invalid value for '--last': 0 is not in the range x>=1.",
        "See `local-mcp-gateway startup --help`.",
    ),
    (
        "completion powershell",
        2,
        "Invalid value for 'SHELL': 'powershell' is not one of 'bash', 'zsh', 'fish'.",
        "See `local-mcp-gateway completion --help`.",
    ),
    (
        "config set gateway.prot 1",
        7,
        "The configuration: there is no setting `gateway.prot`.",
        "Did you mean `gateway.port`?",
    ),
    (
        "config set log.level loud",
        7,
        "The configuration: `log.level` cannot be 'loud'.",
        "It takes 'debug', 'info', 'warning', 'error'.",
    ),
    (
        "config check missing.toml",
        7,
        "The configuration file missing.toml does not exist.",
        "Give an existing file with --config, or leave the option out.",
    ),
)
"""What is typed in a folder with the gateway's database g.db; exit code; sentence; hint. HERE is the folder."""


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A database with one server that ends at once, in the profile work; and files that are wrong."""
    command = str(Path(sys.executable).with_name("local-mcp-gateway"))
    place = replace(new_place(tmp_path_factory.mktemp("bad")), command=(command,))
    root = place.root
    made = ("--database", "g.db", "server", "add", "clock", "--profile", "work", "--", "true")
    assert place.run(*made, bare=True).code == 0
    (root / "folder").mkdir()
    os.mkfifo(root / "pipe")
    for name, content in {
        "bin.toml": b"\xff\xfe",
        "key.toml": b"[gateway]\nprot = 1\n",
        "out.toml": b"port = 1\n",
        "five.json": b'{"mcpServers": 5}',
        "zero.db": bytes(4096),
        "letter": b"hello",
        "bad.sql": b"SELEC 1;",
    }.items():
        (root / name).write_bytes(content)
    return place


def test_there_are_at_least_sixty() -> None:
    assert len({typed for typed, _, _, _ in INPUTS}) == len(INPUTS) >= 60


@pytest.mark.parametrize(
    ("typed", "code", "sentence", "hint"), INPUTS, ids=[typed for typed, _, _, _ in INPUTS]
)
def test_a_bad_input_is_answered_with_its_sentence(
    here: Place, typed: str, code: int, sentence: str, hint: str
) -> None:
    env = {"DATABASE_PATH": str(here.root / "g.db")}
    done = here.run(*shlex.split(typed), bare=True, env=env)
    told = done.stderr.replace(str(here.root), "HERE").splitlines()
    assert done.code == code, done.stderr
    assert done.stdout == ""
    assert told[0].startswith(sentence)
    (hinted,) = [line for line in told if line.startswith("→ ")]
    assert hinted.removeprefix("→ ").startswith(hint)
    assert "Traceback" not in done.stderr
