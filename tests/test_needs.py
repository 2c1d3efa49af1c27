"""A machine that refuses what a test needs has it skipped, with what the machine said."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.harness import REPOSITORY
from tests.needs import attempt

TEST = """
from pathlib import Path
from tests.needs import give_away, held_to_modes, small_disk

def test_a_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "64k"):
        raise AssertionError

def test_a_file_of_another_user(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    give_away(tmp_path / "file")
    raise AssertionError

def test_a_folder_that_may_only_be_read(tmp_path: Path) -> None:
    assert held_to_modes() == ()
"""


def test_what_a_machine_refuses_is_a_skip_with_its_words(tmp_path: Path) -> None:
    refused = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
    attempt("no rights can be laid down here", *refused, "true")
    (tmp_path / "test_asking.py").write_text(TEST)
    done = subprocess.run(
        [*refused, sys.executable, "-m", "pytest", "-rs", "-p", "no:cacheprovider",
         "--rootdir", REPOSITORY, tmp_path / "test_asking.py"],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "1 passed, 2 skipped" in done.stdout, done.stdout
    assert "no small disk can be mounted here: mount: " in done.stdout
    assert "no file can be given away here: [Errno 1]" in done.stdout
