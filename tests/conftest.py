"""Fixtures for every test. What they hand out is in `tests/harness.py`.

- `place`: an empty home, a database path and an empty migrations folder under the test's own folder
  (`tests.harness.Place`): `place.folder.add("users", "CREATE TABLE …")`, `place.migrate()`,
  `place.run("db", "status", "--json").json()`, `place.query("SELECT …")`, `place.content()`,
  `with place.serve() as gateway: gateway.wait_ready()`.
- `run_cli`: `place.run`, when a test needs nothing else.
- `gateway_process`: a gateway that serves `place`, ready, on a free port; killed afterwards.
- `shipped`: a place whose migrations folder is a copy of the program's own; to serve, a database
  needs the gateway's own tables, so a test that serves adds its migrations to these.
- `needs_strace`: skips where strace cannot be used.
- `kept`: a place with two migrations applied, a row, and the backup from before the second.
- `issuer`: a server that wants a sign-in, and issues its tokens; as it is at first for each test.
- `in_folder`, `in_bucket`, `in_sftp`: a place for a replica, in a folder, in a running S3 store, and in a folder
  of a running SFTP server (`sftp`); `replica`: each of the three.
- `s3`: an S3 store (moto) as a process, empty for each test, with the bucket `bucket`.
- `count`: a line under the test run: `count("real folders", "applied", folder.name)`.
- `validate_json`: `validate_json("db-status", value)` checks a `--json` output against the schema in
  `docs/schemas/`.

Every test that starts processes does so through these, so none inherits the developer's own
configuration, and none outlives its test.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

from local_mcp_gateway.service.process import event_loop
from tests import tally
from tests.cli.kept import NOTES
from tests.harness import REPOSITORY, Finished, GatewayProcess, Place, new_place, strace_missing
from tests.issuer import Issuer, running_issuer
from tests.object_store import KEYS, S3, running_s3

if TYPE_CHECKING:
    from tests.replicas import Replica
    from tests.sftp import Sftp

# How long an example takes says something about the machine only.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

# A shell that starts the tests in the background has SIGINT ignored, and every process that they start
# would inherit that: Ctrl+C could not be tested.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    with contextlib.suppress(ValueError):
        signal.signal(signal.SIGINT, signal.default_int_handler)


LOOPS = {"uvloop": event_loop(), "asyncio": asyncio.new_event_loop}


@pytest.hookimpl(optionalhook=True)
def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Any]:
    """Return the event loop that `serve` takes, and all that there are to a test that names them.

    `@pytest.mark.asyncio(loop_factories=["uvloop", "asyncio"])` runs a test on each.
    """
    loops = {name: loop for name, loop in LOOPS.items() if loop is not None}
    marker = item.get_closest_marker("asyncio")
    if marker is not None and "loop_factories" in marker.kwargs:
        return loops
    return dict([next(iter(loops.items()))])


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return new_place(tmp_path)


@pytest.fixture
def shipped(tmp_path: Path) -> Place:
    return new_place(tmp_path, shipped=True)


@pytest.fixture
def kept(place: Place) -> Place:
    """A place with two migrations applied, a row, and the backup from before the second."""
    place.folder.add("notes", NOTES)
    place.migrate()
    place.write("INSERT INTO notes VALUES (1, 'kept')")
    place.folder.add("pinned", "ALTER TABLE notes ADD COLUMN pinned INTEGER")
    place.migrate()
    return place


@pytest.fixture(scope="session")
def issuer_process() -> Iterator[Issuer]:
    with running_issuer() as running:
        yield running


@pytest.fixture
def issuer(issuer_process: Issuer) -> Issuer:
    issuer_process.set(reset=True)
    return issuer_process


@pytest.fixture(scope="session")
def s3_process() -> Iterator[S3]:
    with running_s3() as running:
        yield running


@pytest.fixture
def s3(s3_process: S3) -> S3:
    s3_process.thaw()
    s3_process.reset()
    s3_process.add_bucket("bucket")
    return s3_process


@pytest.fixture
def in_folder(tmp_path: Path) -> Replica:
    """A place for a replica in a folder."""
    from tests.replicas import Replica

    (tmp_path / "elsewhere").mkdir()
    return Replica(f"file://{tmp_path}/elsewhere")


@pytest.fixture
def in_bucket(s3: S3, monkeypatch: pytest.MonkeyPatch) -> Replica:
    """A place for a replica in a bucket, whose keys the test has too."""
    from tests.replicas import Replica

    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    bucket = f"replica-{secrets.token_hex(4)}"  # what a killed gateway of an earlier test sends ends nowhere
    s3.add_bucket(bucket)
    return Replica(f"s3://{bucket}/gateway", s3.endpoint)


@pytest.fixture
def sftp(tmp_path: Path) -> Iterator[Sftp]:
    """An SFTP server as a process, with an empty folder and keys of its own."""
    from tests.sftp import running_sftp

    with running_sftp(tmp_path / "sftp") as running:
        yield running


@pytest.fixture
def in_sftp(sftp: Sftp) -> Replica:
    """A place for a replica in a folder of an SFTP server."""
    from tests.replicas import Replica

    return Replica(sftp.url, ssh_key=str(sftp.key), ssh_host_key=sftp.host_key)


@pytest.fixture(
    params=[
        "in_folder",
        pytest.param("in_bucket", marks=pytest.mark.nightly),
        pytest.param("in_sftp", marks=pytest.mark.nightly),
    ]
)
def replica(request: pytest.FixtureRequest) -> Replica:
    """A place for a replica of each kind."""
    found: Replica = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def run_cli(place: Place) -> Callable[..., Finished]:
    return place.run


@pytest.fixture
def gateway_process(shipped: Place) -> Iterator[GatewayProcess]:
    with shipped.serve() as gateway:
        yield gateway.wait_ready()


@pytest.fixture(scope="session")
def needs_strace() -> None:
    if strace_missing():
        pytest.skip("strace cannot be used here")


@pytest.fixture(scope="session")
def validate_json() -> Callable[[str, Any], None]:
    import jsonschema

    def validate(name: str, value: Any) -> None:
        schema = json.loads((REPOSITORY / "docs" / "schemas" / f"{name}.json").read_text())
        validator = jsonschema.Draft202012Validator(schema)
        errors = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)]
        assert not errors, errors

    return validate


@pytest.fixture(scope="session")
def count(pytestconfig: pytest.Config) -> tally.Count:
    return tally.counter(pytestconfig)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return how many processes run the tests: two for each core, since tests mostly wait for processes.

    One file, or tests with `-s`, run in this process: files are what `make test` deals out.
    """
    files = {Path(argument.partition("::")[0]) for argument in config.args}
    alone = len(files) == 1 and all(file.is_file() for file in files)
    return 0 if alone or config.option.capture == "no" else 2 * len(os.sched_getaffinity(0))


SLOW = ("drizzle", "e2e", "npm", "peers", "systemd")
"""Marks of tests that start many programs, or programs that are slow to start."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deal out the files that take longest first (`make test`), so that none of them runs alone at the end."""
    if not hasattr(config, "workerinput"):
        return
    tests = Counter(item.path for item in items)
    slow = {i.path for i in items if any(i.get_closest_marker(name) for name in SLOW)}
    slow |= {path for path in tests if path.match("studio/test_browser_*.py")}
    items.sort(key=lambda item: (item.path not in slow, -tests[item.path], item.path))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand the counts of a worker (`-n 2`) to the process that shows them."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["tally"] = tally.handed_over(session.config)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    tally.take_over(node.config, getattr(node, "workeroutput", {}).get("tally", {}))


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    for line in tally.lines(config):
        terminalreporter.write_line(line)
