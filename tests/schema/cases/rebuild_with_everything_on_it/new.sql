CREATE TABLE profiles (
  id TEXT PRIMARY KEY NOT NULL
);
CREATE TABLE mcp_servers (
  id TEXT PRIMARY KEY NOT NULL,
  name TEXT NOT NULL CHECK (name <> ''),
  profile_id TEXT REFERENCES profiles(id)
);
CREATE TABLE notes (
  id INTEGER PRIMARY KEY,
  server TEXT REFERENCES mcp_servers(id) ON DELETE CASCADE
);
CREATE INDEX by_name ON mcp_servers(name DESC) WHERE name > '';
CREATE UNIQUE INDEX by_lower ON mcp_servers(lower(name) COLLATE NOCASE);
CREATE VIEW named AS SELECT id, name FROM mcp_servers;
CREATE VIEW short AS SELECT name FROM named;
CREATE TRIGGER on_named INSTEAD OF INSERT ON named BEGIN INSERT INTO mcp_servers (id, name) VALUES (new.id, new.name); END;
CREATE TRIGGER after_note AFTER INSERT ON notes BEGIN UPDATE mcp_servers SET name = name; END;
CREATE TRIGGER after_server AFTER DELETE ON mcp_servers BEGIN DELETE FROM notes WHERE server = old.id; END;
