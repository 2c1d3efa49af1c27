-- rebuild: tree
-- adds_check: tree
CREATE TABLE __new_tree (
  id INTEGER PRIMARY KEY,
  parent INTEGER REFERENCES tree(id) ON DELETE CASCADE,
  CHECK (id <> parent)
);
INSERT INTO __new_tree (id, parent) SELECT id, parent FROM tree;
DROP TABLE tree;
ALTER TABLE __new_tree RENAME TO tree;
