CREATE TABLE mcp_servers (
  id TEXT PRIMARY KEY NOT NULL,
  name TEXT NOT NULL,
  url TEXT
);
CREATE TABLE profiles (
  id TEXT PRIMARY KEY NOT NULL,
  server_id TEXT REFERENCES mcp_servers(id) ON DELETE CASCADE
);
