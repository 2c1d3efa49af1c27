-- rebuild: mcp_servers
-- changes_primary_key: mcp_servers
CREATE TABLE __new_mcp_servers (
  id TEXT NOT NULL,
  name TEXT NOT NULL,
  url TEXT,
  PRIMARY KEY (id, name)
);
INSERT INTO __new_mcp_servers (rowid, id, name, url) SELECT rowid, id, name, url FROM mcp_servers;
DROP TABLE mcp_servers;
ALTER TABLE __new_mcp_servers RENAME TO mcp_servers;
