-- rebuild: mcp_servers
-- adds_check: mcp_servers(profile_id)
CREATE TABLE __new_mcp_servers (
  id TEXT PRIMARY KEY NOT NULL,
  name TEXT NOT NULL,
  profile_id TEXT REFERENCES profiles(id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
);
INSERT INTO __new_mcp_servers (rowid, id, name, profile_id) SELECT rowid, id, name, profile_id FROM mcp_servers;
DROP TABLE mcp_servers;
ALTER TABLE __new_mcp_servers RENAME TO mcp_servers;
