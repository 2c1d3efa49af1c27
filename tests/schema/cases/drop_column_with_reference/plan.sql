-- deletes_data: mcp_servers.profile_id
-- breaks_running_version: mcp_servers.profile_id
ALTER TABLE mcp_servers DROP COLUMN profile_id;
