-- rebuild: mcp_servers
CREATE TABLE __new_mcp_servers (
  id TEXT PRIMARY KEY NOT NULL,
  name TEXT NOT NULL,
  url TEXT,
  shout TEXT GENERATED ALWAYS AS (upper(name)) STORED
);
INSERT INTO __new_mcp_servers (rowid, id, name, url) SELECT rowid, id, name, url FROM mcp_servers;
DROP TABLE mcp_servers;
ALTER TABLE __new_mcp_servers RENAME TO mcp_servers;
