CREATE TABLE mcp_servers (
  url TEXT,
  name TEXT NOT NULL,
  id TEXT PRIMARY KEY NOT NULL
);
