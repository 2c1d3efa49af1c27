-- drops_index: i
DROP INDEX i;
CREATE INDEX i ON profiles(id);
