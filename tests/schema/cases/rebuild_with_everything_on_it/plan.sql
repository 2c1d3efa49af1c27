-- rebuild: mcp_servers
-- adds_check: mcp_servers
DROP TRIGGER after_note;
DROP VIEW short;
DROP VIEW named;
CREATE TABLE __new_mcp_servers (
  id TEXT PRIMARY KEY NOT NULL,
  name TEXT NOT NULL CHECK (name <> ''),
  profile_id TEXT REFERENCES profiles(id)
);
INSERT INTO __new_mcp_servers (rowid, id, name, profile_id) SELECT rowid, id, name, profile_id FROM mcp_servers;
DROP TABLE mcp_servers;
ALTER TABLE __new_mcp_servers RENAME TO mcp_servers;
CREATE INDEX by_name ON mcp_servers(name DESC) WHERE name > '';
CREATE UNIQUE INDEX by_lower ON mcp_servers(lower(name) COLLATE NOCASE);
CREATE VIEW named AS SELECT id, name FROM mcp_servers;
CREATE VIEW short AS SELECT name FROM named;
CREATE TRIGGER on_named INSTEAD OF INSERT ON named BEGIN INSERT INTO mcp_servers (id, name) VALUES (new.id, new.name); END;
CREATE TRIGGER after_note AFTER INSERT ON notes BEGIN UPDATE mcp_servers SET name = name; END;
CREATE TRIGGER after_server AFTER DELETE ON mcp_servers BEGIN DELETE FROM notes WHERE server = old.id; END;
