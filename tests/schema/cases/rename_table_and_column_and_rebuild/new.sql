-- rename: mcp_servers=servers
-- rename: servers.url=servers.address
CREATE TABLE servers (
  id TEXT PRIMARY KEY NOT NULL,
  name TEXT NOT NULL,
  address TEXT NOT NULL DEFAULT ''
);
