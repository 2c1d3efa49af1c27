ALTER TABLE mcp_servers ADD COLUMN sandbox TEXT;
