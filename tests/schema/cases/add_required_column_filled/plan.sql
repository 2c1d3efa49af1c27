-- rebuild: mcp_servers
-- breaks_running_version: mcp_servers.owner
CREATE TABLE __new_mcp_servers (
  id TEXT PRIMARY KEY NOT NULL,
  name TEXT NOT NULL,
  url TEXT,
  owner TEXT NOT NULL
);
INSERT INTO __new_mcp_servers (rowid, id, name, url, owner) SELECT rowid, id, name, url, 'nobody' FROM mcp_servers;
DROP TABLE mcp_servers;
ALTER TABLE __new_mcp_servers RENAME TO mcp_servers;
