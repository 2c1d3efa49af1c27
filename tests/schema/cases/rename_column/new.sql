-- rename: mcp_servers.url=mcp_servers.address
CREATE TABLE mcp_servers (
  id TEXT PRIMARY KEY NOT NULL,
  name TEXT NOT NULL,
  address TEXT
);
CREATE INDEX by_url ON mcp_servers(address);
CREATE VIEW v AS SELECT address FROM mcp_servers;
