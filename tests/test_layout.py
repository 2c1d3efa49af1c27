"""Where a test is: each module of more than a hundred lines has a test file of its own name."""

from __future__ import annotations

from pathlib import Path

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "daemon" / "local_mcp_gateway"
LINES = 100


def test_a_long_module_has_a_test_file_of_its_name() -> None:
    modules = [
        file.relative_to(PACKAGE)
        for file in sorted(PACKAGE.rglob("*.py"))
        if file.name != "__init__.py" and len(file.read_text().splitlines()) > LINES
    ]
    assert len(modules) > 100
    missing = [
        str(module)
        for module in modules
        if not (TESTS / module).with_name(f"test_{module.name}").exists()
    ]
    assert missing == []
