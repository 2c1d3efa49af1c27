"""How values look: nothing of them becomes markup, and what is marked is right."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from jinja2 import UndefinedError
from markupsafe import Markup

from local_mcp_gateway.formats import now_ms
from local_mcp_gateway.studio.render import (
    LONGEST_MARKED,
    ago,
    compared,
    environment,
    json_markup,
    moment,
    pretty,
    revealed,
    sql_markup,
)

EVIL = "<img src=x onerror=alert(1)>"


@pytest.mark.parametrize("mark", [json_markup, sql_markup])
@pytest.mark.parametrize(
    "text", [EVIL, f"'{EVIL}'", f"-- {EVIL}", f'{{"{EVIL}": "{EVIL}"}}', "a" * 300_000]
)
def test_nothing_of_a_text_becomes_markup(mark: object, text: str) -> None:
    assert callable(mark)
    shown = mark(text)
    assert isinstance(shown, Markup)
    assert "<img" not in shown
    assert Markup(shown).striptags()


def test_sql_is_shown_whole_with_its_parts_apart() -> None:
    text = "SELECT \"a b\", 'it''s', 1.5 -- why\nFROM [t];"
    shown = sql_markup(text)
    assert '<span class="k">SELECT</span>' in shown
    assert '<span class="s">&#39;it&#39;&#39;s&#39;</span>' in shown
    assert '<span class="m">1.5</span>' in shown
    assert "-- why" in shown
    assert shown.unescape().replace("\n", " ").count("[t]") == 1


def test_json_tells_names_from_strings() -> None:
    shown = json_markup({"a": ["b", 1, None]})
    assert '<span class="k">&#34;a&#34;</span>:' in shown
    assert '<span class="s">&#34;b&#34;</span>' in shown
    assert '<span class="m">null</span>' in shown


def test_a_value_that_is_no_json_is_shown_as_it_is() -> None:
    assert pretty("{not json") == "{not json"
    deep: list[object] = []
    for _ in range(2000):
        deep = [deep]
    assert pretty(deep)
    assert len(json_markup("x" * (LONGEST_MARKED + 1))) > LONGEST_MARKED


def test_a_difference_marks_what_only_one_side_has() -> None:
    left, right = compared("Reads a <file>.", "Reads a <file> and sends it.")
    assert "<del>" not in left
    assert right == "Reads a &lt;file&gt;<ins> and sends it</ins>."
    left, right = compared("a " * 3000, "b " * 3000)
    assert left.startswith("<del>")


def test_a_time_is_local_and_exact_and_an_impossible_one_is_none() -> None:
    assert 'datetime="2026-01-02T03:04:05' in moment("2026-01-02T03:04:05Z")
    assert ago(now_ms() - 7_200_000) == "2 hours ago"
    assert ago(now_ms()) == "just now"
    for odd in ("yesterday", 10**30, None):
        assert "–" in moment(odd)


def test_a_name_that_a_template_misspells_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        environment().from_string("{{ nothing }}").render()


def test_pages_stay_as_they_were_when_an_upgrade_replaces_their_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "templates").mkdir()
    template = tmp_path / "templates" / "page.html"
    template.write_text("{{ name }}")
    monkeypatch.setattr("local_mcp_gateway.studio.render.HERE", tmp_path)
    pages = environment.__wrapped__()
    template.write_text("{{ another }}")
    assert pages.get_template("page.html").render(name="as it was") == "as it was"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a\u202eb", ["U+202E"]),
        ("a\u200bb\ufeff", ["U+200B", "U+FEFF"]),
        (
            "send" + "".join(chr(0xE0000 + ord(c)) for c in "the key"),
            ["U+E0074, 7 invisible characters"],
        ),
        ("\x00\x1b[31m", ["U+0000, 2 invisible characters"]),
        ("two\nlines\tand שלום", []),
    ],
)
def test_what_a_model_reads_and_a_person_does_not_see_is_named(text: str, names: list[str]) -> None:
    named = [f'<span class="tag warn">{name}</span>' for name in names]
    assert re.findall("<span.*?</span>", revealed(text)) == named
    assert re.findall("<span.*?</span>", compared("", text)[1]) == named
