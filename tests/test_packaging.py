"""`pip install .` and the container give a command that works away from the repository, with all inside."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.container import RUN, in_overlay, read_image
from tests.harness import REPOSITORY, Place, clean_environment, new_place


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of what git would clone, so that no build touches the working tree."""
    copy = tmp_path_factory.mktemp("source")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        check=True,
    ).stdout
    for file in filter(None, listed.decode().split("\0")):
        if (REPOSITORY / file).is_file():
            (copy / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / file, copy / file)
    return copy


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    # Without an index: the build backend is in the lock, so a build fetches nothing.
    subprocess.run([*pip, "--no-index", "--wheel-dir", str(folder), str(source)], check=True)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_migrations_config_unit_and_examples(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    pages = {"templates/base.html", "static/studio.css", "static/studio.js", "static/icon.svg"}
    assert {f"local_mcp_gateway/studio/{name}" for name in pages} <= names
    for folder in ("migrations", "config", "systemd", "examples"):
        for file in (REPOSITORY / folder).rglob("*"):
            if file.is_file() and file.suffix not in {".pyc", ""}:
                relative = file.relative_to(REPOSITORY)
                assert f"local_mcp_gateway/_bundled/{relative}" in names
    assert "local_mcp_gateway/py.typed" in names
    assert any(name.endswith(".data/data/share/man/man1/local-mcp-gateway.1") for name in names)
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/"))]


@pytest.mark.e2e
@pytest.mark.parametrize("lock", ["", pytest.param("run", marks=pytest.mark.nightly)])
def test_the_installed_command_migrates_and_serves_with_what_the_wheel_brought(
    wheel: Path, tmp_path: Path, lock: str
) -> None:
    """With the dependencies of these tests, or, as a person installs it, with those of the lock and no other."""
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    python = str(venv / "bin" / "python")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps"]
    (packages,) = venv.glob("lib/python*/site-packages")
    if lock:
        file = REPOSITORY / "requirements" / f"{lock}.txt"
        subprocess.run([*pip, "--require-hashes", "--requirement", str(file)], check=True)
    else:
        (packages / "shared.pth").write_text(sysconfig.get_path("purelib"))
    subprocess.run([*pip, "--no-index", str(wheel)], check=True)
    command = (str(venv / "bin" / "local-mcp-gateway"),)
    place = new_place(tmp_path, command)
    version = place.run("--version", bare=True)
    assert version.code == 0, version.stderr
    assert "local-mcp-gateway" in version.stdout

    data = place.home / ".local-mcp-gateway-data"
    done = place.run("db", "migrate", bare=True)
    assert done.code == 0, done.stderr
    assert (data / "local-mcp-gateway.db").exists()
    assert data.stat().st_mode & 0o777 == 0o700
    for file in data.iterdir():
        assert file.stat().st_mode & 0o077 == 0, file
    status = place.run("db", "status", "--json", bare=True).json()
    assert status["state"] == "current"
    shipped = sorted(path.stem for path in (REPOSITORY / "migrations").glob("*.sql"))
    assert [entry["tag"] for entry in status["applied"]] == [
        tag for tag in shipped if not tag.endswith(".down")
    ]
    with place.serve(options=()) as gateway:
        gateway.wait_ready()
        assert gateway.stop() == 0
    assert not list(packages.glob("rich"))


def make(clone: Path, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", *arguments],
        cwd=clone,
        env=clean_environment(home),
        capture_output=True,
        text=True,
        check=False,
    )


def test_make_alone_lists_its_targets_and_sets_nothing_up(source: Path, tmp_path: Path) -> None:
    done = make(source, tmp_path)
    assert done.returncode == 0
    makefile = (source / "Makefile").read_text()
    targets = makefile.partition(".PHONY: ")[2].partition("\n")[0].split()
    assert targets[:4] == ["help", "setup", "run", "test"]
    assert [line.split()[1] for line in done.stdout.splitlines()] == targets
    assert not (source / ".venv").exists()


def test_a_python_that_is_too_old_is_said_at_once(source: Path, tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    done = make(source, tmp_path, "setup", f"PYTHON={old}")
    assert done.returncode != 0
    assert "Python 3.11 or newer" in done.stderr


def test_the_bundled_files_are_found_in_the_repository_too(place: Place) -> None:
    code = "from local_mcp_gateway.bundled import bundled; print(bundled('migrations'))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=place.root
    )
    assert Path(done.stdout.strip()) == REPOSITORY / "migrations"
    assert any(Path(done.stdout.strip()).glob("*.sql"))


@pytest.fixture
def overlay(tmp_path: Path) -> Path:
    """Return where an overlay can be mounted."""
    needed = [name for name in ("unshare", "chroot", "useradd", "ip") if shutil.which(name) is None]
    if needed:
        pytest.skip(f"not installed: {', '.join(needed)}")
    tried = in_overlay('chroot . python3 -c "import venv"', tmp_path / "place")
    if tried.returncode != 0:
        pytest.skip(f"no overlay of this machine's files: {tried.stderr.strip()}")
    return tmp_path / "place"


@pytest.mark.nightly
def test_the_image_serves_as_its_user_is_healthy_and_stops_when_told(
    overlay: Path, source: Path
) -> None:
    image = read_image((REPOSITORY / "Dockerfile").read_text())
    run = f"export {image.environment}\n" + RUN.format(
        command=shlex.join(image.command), health=image.health
    )
    as_user = f"chroot --userspec={image.user}:{image.user} . sh -c {shlex.quote(run)}"
    alone = f"ip link set lo up && exec {as_user}"  # its port is nobody else's
    steps = [*image.build, f"exec unshare --net sh -c {shlex.quote(alone)}"]
    done = in_overlay(" &&\n".join(steps), overlay, source)
    lines = done.stdout.splitlines()
    told = done.stdout + done.stderr
    assert "health check: 0" in lines, told
    assert ".local-mcp-gateway-data" in lines, told
    assert lines[-1] == "gateway: exit 0", told
    assert done.returncode == 0
