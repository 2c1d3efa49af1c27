-- deletes_data: mcp_servers.url
-- breaks_running_version: mcp_servers.url
-- drops_index: by_url
DROP INDEX by_url;
ALTER TABLE mcp_servers DROP COLUMN url;
