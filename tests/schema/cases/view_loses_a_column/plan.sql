-- deletes_data: mcp_servers.url
-- breaks_running_version: mcp_servers.url
DROP VIEW v;
ALTER TABLE mcp_servers DROP COLUMN url;
CREATE VIEW v AS SELECT id FROM mcp_servers;
