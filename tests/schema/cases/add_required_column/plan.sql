-- not_null_without_default: mcp_servers.owner
-- breaks_running_version: mcp_servers.owner
ALTER TABLE mcp_servers ADD COLUMN owner TEXT NOT NULL;
