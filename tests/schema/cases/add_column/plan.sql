ALTER TABLE mcp_servers ADD COLUMN description TEXT;
