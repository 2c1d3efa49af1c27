-- breaks_running_version: t.a
-- breaks_running_version: t.b
ALTER TABLE t RENAME COLUMN a TO __renamed_a;
ALTER TABLE t RENAME COLUMN b TO a;
ALTER TABLE t RENAME COLUMN __renamed_a TO b;
