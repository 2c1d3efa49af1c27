"""The docs say what the code does: generated pages are current, links lead somewhere, commands exist."""

from __future__ import annotations

import ast
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import click
import jsonschema
import pytest

from local_mcp_gateway.cli.main import cli
from local_mcp_gateway.service.admin import connect
from tests.harness import REPOSITORY

SVG = "{http://www.w3.org/2000/svg}"
PACKAGE = REPOSITORY / "daemon" / "local_mcp_gateway"
PAGES = sorted(
    path
    for path in [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")]
    if path.name != "CHANGELOG.md"
)


def name(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def test_the_generated_pages_are_what_the_code_says() -> None:
    check = [sys.executable, "docs/generate.py", "--check"]
    done = subprocess.run(check, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_manual_page_is_set_without_a_warning_and_in_80_columns() -> None:
    if shutil.which("groff") is None:
        pytest.skip("groff is not installed")
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-P-cbou", "-rLL=80n", "docs/local-mcp-gateway.1"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert {"db migrate", "server add", "FILES"} <= set(lines)


def test_the_readme_fits_on_two_screens() -> None:
    assert len((REPOSITORY / "README.md").read_text().splitlines()) <= 120


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_of_a_page_leads_to_a_file_and_a_heading(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        where = (page.parent / file).resolve() if file else page
        assert where.exists(), target
        if anchor:
            assert anchor in set(anchors(where.read_text())), target


def anchors(text: str) -> Iterator[str]:
    for heading in re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE):
        yield re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


def commands() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for block in re.findall(r"```console\n(.*?)```", page.read_text(), flags=re.DOTALL):
            for line in block.splitlines():
                match = re.match(r"\$ (?:\.venv/bin/)?(local-mcp-gateway [^#|>&;]*)", line)
                if match:
                    yield name(page), match[1].strip().removesuffix(" 2")


@pytest.mark.parametrize(("page", "line"), sorted(set(commands())))
def test_every_command_in_the_docs_exists_with_its_options(page: str, line: str) -> None:
    arguments = shlex.split(line)[1:]
    if arguments in (["--version"], ["--help"]):
        return
    command: click.Command = cli
    context: click.Context | None = None
    while True:
        context = command.make_context("x", arguments, parent=context, resilient_parsing=False)
        if not isinstance(command, click.Group):
            return
        arguments = [*context._protected_args, *context.args]
        assert arguments, f"{line}: which command?"
        _, below, arguments = command.resolve_command(context, arguments)
        assert below is not None
        command = below


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    groups = [
        project["project"]["dependencies"],
        *project["project"]["optional-dependencies"].values(),
        *project["dependency-groups"].values(),
    ]
    wanted = {re.split(r"[<>=\[]", line)[0] for group in groups for line in group}
    text = (REPOSITORY / "docs" / "dependencies.md").read_text()
    assert set(re.findall(r"^\| `([^`]+)` \|", text, flags=re.MULTILINE)) == wanted


def test_contributing_names_only_files_that_exist() -> None:
    text = (REPOSITORY / "CONTRIBUTING.md").read_text()
    named = {
        word for word in re.findall(r"`([\w./-]+)`", text) if "/" in word or word.endswith(".py")
    }
    assert "errors.py" in named
    bases = (REPOSITORY, PACKAGE)
    assert [word for word in named if not any((base / word).exists() for base in bases)] == []


def test_the_layers_in_contributing_are_those_that_the_linter_checks() -> None:
    text = (REPOSITORY / "CONTRIBUTING.md").read_text()
    drawn = [
        re.split(r"\s*[>|]\s*", line.partition(": ")[2] or line.strip())
        for line in re.findall(r"^    (.* > .*)$", text, flags=re.MULTILINE)
    ]
    contracts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    layers = [
        (PACKAGE / "/".join(contract["containers"][0].split(".")[1:]), contract["layers"])
        for contract in contracts["tool"]["importlinter"]["contracts"]
        if contract["type"] == "layers"
    ]
    assert len(drawn) == len(layers)
    for names, (folder, rows) in zip(drawn, layers, strict=True):
        checked = [part.strip(" ()") for row in rows for part in row.split("|")]
        places = [name.removesuffix(".py") for name in names]
        assert sorted(places, key=checked.index) == places
        assert [name for name in names if not is_module(folder / name)] == []
        assert [part for part in checked if (folder / part).is_dir() and part not in places] == []


def is_module(path: Path) -> bool:
    return path.exists() or path.with_suffix(".py").exists()


def test_every_decision_is_in_the_index_and_fits_on_a_page() -> None:
    folder = REPOSITORY / "docs" / "adr"
    index = (folder / "README.md").read_text()
    for page in sorted(folder.glob("0*.md")):
        assert f"({page.name})" in index
        assert len(page.read_text().splitlines()) <= 60


@pytest.mark.parametrize("lock", ["run", "demo", "dev", "lint"])
def test_a_lock_file_carries_a_hash_for_everything_and_no_address(lock: str) -> None:
    text = (REPOSITORY / "requirements" / f"{lock}.txt").read_text()
    assert "://" not in text
    assert "--index" not in text
    for entry in re.split(r"\n(?=[a-z])", text.strip()):
        assert "==" in entry.splitlines()[0]
        assert "--hash=sha256:" in entry


def test_the_runtime_is_free_of_rich() -> None:
    for lock in ("run", "demo", "dev"):
        text = (REPOSITORY / "requirements" / f"{lock}.txt").read_text()
        assert not re.search(r"^rich==", text, flags=re.MULTILINE)


@pytest.mark.parametrize(
    "schema", sorted((REPOSITORY / "docs" / "schemas").glob("*.json")), ids=lambda path: path.stem
)
def test_a_schema_of_the_json_outputs_is_itself_valid(schema: Path) -> None:
    value = json.loads(schema.read_text())
    jsonschema.Draft202012Validator.check_schema(value)
    assert value["title"]


def test_every_function_that_the_architecture_page_names_is_in_its_file() -> None:
    text = (REPOSITORY / "docs" / "architecture.md").read_text()
    rows = re.findall(r"^\| [^|]+ \| (`[^|]+`) \| `([\w/]+\.py)` \|$", text, flags=re.MULTILINE)
    assert len(rows) > 30
    for names, file in rows:
        defined = {
            node.name
            for node in ast.parse((PACKAGE / file).read_text()).body
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        }
        assert set(re.findall(r"`(\w+)`", names)) - defined == set(), file


RECORDED_REFUSALS: dict[str, dict[str, list[str]]] = {
    "first-minute.md": {},
    "dev-mode.md": {
        "`0011_words.sql` is saved with a typo in its second statement.": ["exit_code=5"],
    },
    "service.md": {
        "A broken one: the reload fails, and the service goes on as it was.": ["(exit code 5)"],
        "A restart is refused: it is not tried in a loop, and the status has the reason.": [
            "(exit code 1)",
            "ExecMainStatus=5",
            "ActiveState=failed",
            "refused after",
        ],
    },
}
"""What each recording shows to fail, under the caption that says so."""
REFUSAL = re.compile(
    r"\(exit code [1-9]\d*\)|exit_code=[1-9]\d*|ExecMainStatus=[1-9]\d*|ActiveState=failed|refused after"
)


@pytest.mark.parametrize(
    "page", sorted((REPOSITORY / "docs" / "recordings").glob("*.md")), ids=name
)
def test_a_recording_holds_no_refusal_that_its_caption_does_not_tell_of(page: Path) -> None:
    caption, found = "", dict[str, list[str]]()
    for part in page.read_text().split("\n\n"):
        if not part.startswith(("$ ", "```")):
            caption = part
        elif told := REFUSAL.findall(part):
            found.setdefault(caption, []).extend(told)
    assert found == RECORDED_REFUSALS[page.name]


def test_the_recorded_first_minute_is_short_and_shows_a_refusal_between_two_changes() -> None:
    picture = ET.parse(REPOSITORY / "docs" / "recordings" / "screen.svg")
    text = "\n".join("".join(line.itertext()) for line in picture.iter(f"{SVG}text"))
    told = re.findall(r"call\.finished|migration\.hot_(?:applied|refused)|✗", text)
    tool = ["call.finished", "call.finished"]
    assert told == [
        *tool,
        "migration.hot_applied",
        "✗",
        "migration.hot_refused",
        "migration.hot_applied",
    ]
    assert "/tmp" not in text
    style = picture.find(f"{SVG}style")
    assert style is not None
    (seconds,) = re.findall(r"animation: ([\d.]+)s", style.text or "")
    assert float(seconds) <= 20


def test_the_lines_for_clients_are_those_that_connect_prints(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connect, "this_command", lambda: ("local-mcp-gateway",))
    page = (REPOSITORY / "docs" / "connect-your-client.md").read_text()
    (shown,) = re.findall(r"```text\n(.*?)\n```", page, re.DOTALL)
    assert shown.splitlines() == [*connect.client_lines("http://127.0.0.1:3001/mcp")]
    known = re.findall(r"`([a-z-]+)`", page[page.index("it knows:") : page.index("## By hand")])
    assert known == [*connect.CLIENTS]
