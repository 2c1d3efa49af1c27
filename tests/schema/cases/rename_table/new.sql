-- rename: mcp_servers=servers
CREATE TABLE servers (
  id TEXT PRIMARY KEY NOT NULL,
  name TEXT NOT NULL,
  url TEXT
);
CREATE TABLE notes (
  id INTEGER PRIMARY KEY,
  server TEXT REFERENCES servers(id)
);
