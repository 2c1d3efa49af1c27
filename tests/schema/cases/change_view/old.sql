CREATE TABLE mcp_servers (
  id TEXT PRIMARY KEY NOT NULL,
  name TEXT NOT NULL,
  url TEXT
);
CREATE VIEW v AS SELECT id FROM mcp_servers;
