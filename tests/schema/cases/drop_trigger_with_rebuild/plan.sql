-- rebuild: notes
-- drops_index: notes_text
-- drops_trigger: audit
DROP TRIGGER audit;
DROP INDEX notes_text;
CREATE TABLE __new_notes (id INTEGER PRIMARY KEY, text TEXT DEFAULT '');
INSERT INTO __new_notes (id, text) SELECT id, text FROM notes;
DROP TABLE notes;
ALTER TABLE __new_notes RENAME TO notes;
CREATE TRIGGER kept AFTER DELETE ON notes BEGIN INSERT INTO log VALUES (old.text); END;
