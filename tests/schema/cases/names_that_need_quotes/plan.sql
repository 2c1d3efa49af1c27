-- rebuild: "order"
-- changes_values: "order"."a b"
CREATE TABLE __new_order (
  "group" TEXT,
  "a b" TEXT NOT NULL DEFAULT 'it''s',
  [c"d] TEXT
);
INSERT INTO __new_order (rowid, "group", "a b") SELECT rowid, "group", coalesce("a b", 'it''s') FROM "order";
DROP TABLE "order";
ALTER TABLE __new_order RENAME TO "order";
CREATE INDEX "by group" ON "order"("group");
