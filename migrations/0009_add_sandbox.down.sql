-- guard: accept deletes_data
ALTER TABLE mcp_servers DROP COLUMN sandbox;
