CREATE TABLE mcp_servers (
  id TEXT PRIMARY KEY NOT NULL,
  name TEXT NOT NULL,
  url TEXT
);
CREATE TABLE notes (
  id INTEGER PRIMARY KEY,
  server TEXT REFERENCES mcp_servers(id)
);
