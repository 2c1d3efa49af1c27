"""Drizzle Kit itself, from npm, to hold our folders and plans against.

It asks about renames on a terminal and fails without one; so it gets one, and Enter as the answer to
everything: the first choice is always "created", which is what `--no-renames` is for us.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tests.needs import open_terminal

_SILENCE_S = 0.3
PACKAGES = ("drizzle-kit@0.31.11", "drizzle-orm@0.45.4")

_GENERATE = """
const api = require('drizzle-kit/api'), fs = require('fs');
(async () => {
  const made = [];
  for (const [a, b] of JSON.parse(fs.readFileSync(process.argv[2]))) {
    try { made.push(await api.generateSQLiteMigration(a, b)); } catch (e) { made.push(String(e)); }
  }
  fs.writeFileSync(process.argv[3], JSON.stringify(made));
  process.exit(0);
})();
"""


class NotInstalled(Exception):
    """There is no Node.js, or npm could not fetch the packages."""


def installed(cache: Path) -> Path:
    """Return a folder with Drizzle Kit in its node_modules, fetched once; raises NotInstalled."""
    folder = cache / "drizzle-kit"
    if (folder / "node_modules" / "drizzle-kit").is_dir():
        return folder
    if shutil.which("npm") is None:
        raise NotInstalled("npm is not here")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "package.json").write_text('{"name": "fixture", "private": true}')
    try:
        subprocess.run(
            [
                "npm",
                "install",
                "--silent",
                "--no-audit",
                "--no-fund",
                "--ignore-scripts=false",
                *PACKAGES,
            ],
            cwd=folder,
            check=True,
            capture_output=True,
            timeout=300,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise NotInstalled(f"{' '.join(PACKAGES)}: {error}") from error
    return folder


def on_a_terminal(command: list[str], cwd: Path, *, deadline_s: float = 120.0) -> tuple[int, str]:
    """Run a command on a terminal of its own and press Enter whenever it is silent."""
    ours, its_side = open_terminal()
    process = subprocess.Popen(
        command, cwd=cwd, stdin=its_side, stdout=its_side, stderr=its_side, start_new_session=True
    )
    os.close(its_side)
    said = b""
    silences = 0
    while silences < deadline_s / _SILENCE_S:
        if select.select([ours], [], [], _SILENCE_S)[0]:
            try:
                said += os.read(ours, 65536)
            except OSError:  # the command has closed its side
                break
        else:
            silences += 1
            os.write(ours, b"\r")
    if process.poll() is None and silences >= deadline_s / _SILENCE_S:
        process.kill()
    code = process.wait()
    os.close(ours)
    return code, said.decode("utf-8", "replace")


def migrations_between(
    kit: Path, pairs: list[tuple[dict[str, Any], dict[str, Any]]]
) -> list[list[str] | str]:
    """Return Drizzle's statements for each pair of version 6 snapshots, or why there are none."""
    script, asked, answered = kit / "_generate.cjs", kit / "_asked.json", kit / "_answered.json"
    script.write_text(_GENERATE)
    asked.write_text(json.dumps(pairs))
    answered.unlink(missing_ok=True)
    on_a_terminal(["node", str(script), str(asked), str(answered)], kit)
    found: list[list[str] | str] = json.loads(answered.read_text())
    return found
