CREATE TABLE mcp_servers (
  id TEXT PRIMARY KEY NOT NULL,
  name TEXT NOT NULL,
  url TEXT,
  CONSTRAINT url_is_web CHECK (mcp_servers.url LIKE 'http%')
);
