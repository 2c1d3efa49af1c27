-- breaks_running_version: mcp_servers.url
ALTER TABLE mcp_servers RENAME COLUMN url TO address;
