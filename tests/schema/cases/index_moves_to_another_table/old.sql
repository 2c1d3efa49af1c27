CREATE TABLE profiles (
  id TEXT PRIMARY KEY NOT NULL
);
CREATE TABLE mcp_servers (
  id TEXT PRIMARY KEY NOT NULL,
  name TEXT NOT NULL,
  url TEXT
);
CREATE INDEX i ON mcp_servers(name);
