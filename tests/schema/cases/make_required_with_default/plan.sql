-- rebuild: mcp_servers
-- changes_values: mcp_servers.url
CREATE TABLE __new_mcp_servers (
  id TEXT PRIMARY KEY NOT NULL,
  name TEXT NOT NULL,
  url TEXT NOT NULL DEFAULT ''
);
INSERT INTO __new_mcp_servers (rowid, id, name, url) SELECT rowid, id, name, coalesce(url, '') FROM mcp_servers;
DROP TABLE mcp_servers;
ALTER TABLE __new_mcp_servers RENAME TO mcp_servers;
