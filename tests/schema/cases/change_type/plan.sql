-- rebuild: mcp_servers
-- narrows_type: mcp_servers.rank
CREATE TABLE __new_mcp_servers (
  id TEXT PRIMARY KEY NOT NULL,
  name TEXT NOT NULL,
  rank INTEGER
);
INSERT INTO __new_mcp_servers (rowid, id, name, rank) SELECT rowid, id, name, rank FROM mcp_servers;
DROP TABLE mcp_servers;
ALTER TABLE __new_mcp_servers RENAME TO mcp_servers;
