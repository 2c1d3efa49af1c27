CREATE TABLE mcp_servers (
  id TEXT PRIMARY KEY NOT NULL,
  name TEXT,
  url TEXT DEFAULT 'x',
  extra TEXT,
  CHECK (id <> '')
);
CREATE INDEX by_url ON mcp_servers(url);
