-- rebuild: mcp_servers
-- deletes_data: mcp_servers.profile_id
-- breaks_running_version: mcp_servers.profile_id
CREATE TABLE __new_mcp_servers (
  id TEXT PRIMARY KEY NOT NULL,
  name TEXT NOT NULL
);
INSERT INTO __new_mcp_servers (rowid, id, name) SELECT rowid, id, name FROM mcp_servers;
DROP TABLE mcp_servers;
ALTER TABLE __new_mcp_servers RENAME TO mcp_servers;
