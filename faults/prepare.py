"""Run each command once without faults, to know what is right."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from faults.databases import content
from faults.inject import execute
from faults.scenarios import Command, Scenario, file_names, start

if TYPE_CHECKING:
    from faults.runner import Runner


def prepare(command: Command, mode: str, work: Path, runner: Runner) -> Scenario:
    """Build the template and run everything once without faults, to know what is right."""
    template = command.make(runner, work / f"{command.name}-{mode}-template", mode)
    old_copy = template.copy_to(work / "old")
    old = content(old_copy.database)
    start(command, old_copy)
    from_old = content(old_copy.database)
    new_copy = template.copy_to(work / "new")
    imported = work / "imported"
    done = execute(command, new_copy, runner, modules=imported)
    if done.exit_code != 0:
        raise RuntimeError(f"{command.name} failed with {done.exit_code}: {done.stderr}")
    modules = tuple(imported.read_text().split())
    runner.load(modules)
    new = content(new_copy.database)
    names = file_names(new_copy)
    start(command, new_copy)
    from_new = content(new_copy.database)
    tidy = names | file_names(new_copy) | file_names(old_copy) | file_names(template)
    for copy in (old_copy, new_copy):
        shutil.rmtree(copy.root)
    settled = {old: from_old, new: from_new}
    return Scenario(command, mode, template, old, new, settled, tidy, modules)
