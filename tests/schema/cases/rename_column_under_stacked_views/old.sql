CREATE TABLE pages (id INTEGER PRIMARY KEY, title TEXT);
CREATE VIEW named AS SELECT id, title FROM pages;
CREATE VIEW titles AS SELECT title FROM named;
CREATE TRIGGER renamed AFTER UPDATE OF title ON pages BEGIN
  INSERT INTO pages (title) VALUES (old.title);
END;
