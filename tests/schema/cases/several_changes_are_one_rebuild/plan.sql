-- rebuild: mcp_servers
-- adds_check: mcp_servers
-- drops_index: by_name
DROP INDEX by_name;
CREATE TABLE __new_mcp_servers (
  id TEXT PRIMARY KEY NOT NULL,
  name TEXT,
  url TEXT DEFAULT 'x',
  extra TEXT,
  CHECK (id <> '')
);
INSERT INTO __new_mcp_servers (rowid, id, name, url) SELECT rowid, id, name, url FROM mcp_servers;
DROP TABLE mcp_servers;
ALTER TABLE __new_mcp_servers RENAME TO mcp_servers;
CREATE INDEX by_url ON mcp_servers(url);
