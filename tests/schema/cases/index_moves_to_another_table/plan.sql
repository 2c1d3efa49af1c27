DROP INDEX i;
CREATE INDEX i ON profiles(id);
