"""A migration that relies on ON DELETE gets what it asks for: never orphans, never a silent wipe."""

from __future__ import annotations

import pytest

from local_mcp_gateway.errors import VerificationFailed
from tests.migrate.workshop import Workshop

FAMILY = """
CREATE TABLE parent(id INTEGER PRIMARY KEY);
CREATE TABLE child(id INTEGER PRIMARY KEY, p INTEGER DEFAULT 9 REFERENCES parent(id) {action});
CREATE TABLE grandchild(id INTEGER PRIMARY KEY, c INTEGER REFERENCES child(id) ON DELETE CASCADE);
INSERT INTO parent VALUES (1), (2), (9);
INSERT INTO child VALUES (1, 1), (2, 2);
INSERT INTO grandchild VALUES (1, 1), (2, 2);
"""
CHILDREN = "SELECT id, p FROM child"


@pytest.mark.parametrize(
    ("action", "children", "grandchildren"),
    [
        ("ON DELETE CASCADE", [(2, 2)], 1),
        ("ON DELETE SET NULL", [(1, None), (2, 2)], 2),
        ("ON DELETE SET DEFAULT", [(1, 9), (2, 2)], 2),
    ],
)
def test_the_action_of_each_key_is_taken_down_to_the_last_descendant(
    shop: Workshop, action: str, children: list[tuple[object, ...]], grandchildren: int
) -> None:
    shop.add("0000_a", FAMILY.format(action=action))
    shop.apply()
    shop.add("0001_b", "DELETE FROM parent WHERE id = 1;")
    _, losses = shop.apply()
    assert shop.rows(CHILDREN) == children
    assert shop.rows("SELECT count(*) FROM grandchild") == [(grandchildren,)]
    told = {loss.table for loss in losses}
    assert told == ({"parent", "child", "grandchild"} if grandchildren == 1 else {"parent"})


@pytest.mark.parametrize("action", ["", "ON DELETE RESTRICT", "ON DELETE NO ACTION"])
def test_a_key_without_an_action_refuses_the_migration(shop: Workshop, action: str) -> None:
    shop.add("0000_a", FAMILY.format(action=action))
    shop.apply()
    shop.add("0001_b", "DELETE FROM parent WHERE id = 1;")
    with pytest.raises(VerificationFailed, match=r"1 row of child \(rowid 1\)"):
        shop.apply()
    assert shop.rows("SELECT count(*) FROM parent") == [(3,)]


def test_a_file_that_switches_foreign_keys_off_gets_no_actions(shop: Workshop) -> None:
    shop.add("0000_a", FAMILY.format(action="ON DELETE CASCADE"))
    shop.apply()
    shop.add("0001_b", "PRAGMA foreign_keys=OFF;\nDELETE FROM parent WHERE id = 1;")
    with pytest.raises(VerificationFailed, match="child"):
        shop.apply()


def test_a_rebuild_that_leaves_a_parent_out_is_refused_not_cascaded(shop: Workshop) -> None:
    shop.add("0000_a", FAMILY.format(action="ON DELETE CASCADE"))
    shop.apply()
    shop.add(
        "0001_b",
        "CREATE TABLE n(id INTEGER PRIMARY KEY); INSERT INTO n SELECT id FROM parent WHERE id > 1;"
        " DELETE FROM parent; DROP TABLE parent; ALTER TABLE n RENAME TO parent;",
    )
    with pytest.raises(VerificationFailed, match="1 row of child"):
        shop.apply()
    assert shop.rows("SELECT count(*) FROM child") == [(2,)]


def test_a_parent_that_is_put_back_keeps_its_children(shop: Workshop) -> None:
    shop.add("0000_a", FAMILY.format(action="ON DELETE CASCADE"))
    shop.apply()
    shop.add("0001_b", "DELETE FROM parent WHERE id = 1; INSERT INTO parent VALUES (1);")
    shop.apply()
    assert shop.rows("SELECT count(*) FROM child") == [(2,)]


def test_orphans_from_before_are_not_acted_on(shop: Workshop) -> None:
    shop.add("0000_a", FAMILY.format(action="ON DELETE CASCADE"))
    shop.apply()
    shop.execute("PRAGMA foreign_keys=OFF", "INSERT INTO child VALUES (7, 77)")
    shop.add("0001_b", "DELETE FROM parent WHERE id = 1;")
    shop.apply()
    assert shop.rows(CHILDREN) == [(2, 2), (7, 77)]
