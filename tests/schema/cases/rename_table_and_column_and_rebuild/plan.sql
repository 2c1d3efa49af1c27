-- rebuild: mcp_servers
-- breaks_running_version: mcp_servers
-- changes_values: servers.address
-- breaks_running_version: mcp_servers.url
ALTER TABLE mcp_servers RENAME TO servers;
ALTER TABLE servers RENAME COLUMN url TO address;
CREATE TABLE __new_servers (
  id TEXT PRIMARY KEY NOT NULL,
  name TEXT NOT NULL,
  address TEXT NOT NULL DEFAULT ''
);
INSERT INTO __new_servers (rowid, id, name, address) SELECT rowid, id, name, coalesce(address, '') FROM servers;
DROP TABLE servers;
ALTER TABLE __new_servers RENAME TO servers;
