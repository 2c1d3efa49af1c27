"""The guard in another program: the examples of the page are run as they stand, outside of the gateway."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.harness import REPOSITORY, Place, clean_environment

PAGE = (REPOSITORY / "docs" / "as-a-library.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda text: text.split("\n")[-2][:40])
def test_the_page_shows_programs_that_run(place: Place, example: str) -> None:
    place.folder.add("t", "CREATE TABLE t (x TEXT)", "INSERT INTO t VALUES ('a')")
    for _ in range(2):  # a new database, and one that is there
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", example],
            cwd=place.root,
            env=clean_environment(place.home),
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
    assert (place.root / "app.db").exists()
    assert not (place.root / "app.db-wal").exists()


def test_a_refusal_ends_the_program_with_its_exit_code_and_two_lines(place: Place) -> None:
    place.folder.add("t", "CREATE TABEL t (x)")
    example = next(text for text in EXAMPLES if "sys.exit" in text)
    done = subprocess.run(
        [sys.executable, "-c", example],
        cwd=place.root,
        env=clean_environment(place.home),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 5
    assert len(done.stderr.splitlines()) == 2
