CREATE TABLE mcp_servers (
  id TEXT PRIMARY KEY NOT NULL,
  name TEXT NOT NULL,
  url TEXT
);
CREATE INDEX by_url ON mcp_servers(url);
