-- breaks_running_version: mcp_servers
ALTER TABLE mcp_servers RENAME TO servers;
