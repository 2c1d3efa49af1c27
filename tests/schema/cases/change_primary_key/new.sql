CREATE TABLE mcp_servers (
  id TEXT NOT NULL,
  name TEXT NOT NULL,
  url TEXT,
  PRIMARY KEY (id, name)
);
