CREATE INDEX mcp_servers_name ON mcp_servers(name);
