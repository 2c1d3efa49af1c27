-- deletes_data: mcp_servers.url
-- breaks_running_version: mcp_servers.url
ALTER TABLE mcp_servers ADD COLUMN address TEXT;
ALTER TABLE mcp_servers DROP COLUMN url;
