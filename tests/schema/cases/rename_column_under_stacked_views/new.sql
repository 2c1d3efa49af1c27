-- rename: pages.title=pages.name
CREATE TABLE pages (id INTEGER PRIMARY KEY, name TEXT);
CREATE VIEW named AS SELECT id, name FROM pages;
CREATE VIEW titles AS SELECT name FROM named;
CREATE TRIGGER renamed AFTER UPDATE OF name ON pages BEGIN
  INSERT INTO pages (name) VALUES (old.name);
END;
