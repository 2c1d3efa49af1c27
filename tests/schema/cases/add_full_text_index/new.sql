CREATE TABLE mcp_servers (
  id TEXT PRIMARY KEY NOT NULL,
  name TEXT NOT NULL,
  url TEXT
);
CREATE VIRTUAL TABLE search USING fts5(name, content='mcp_servers');
