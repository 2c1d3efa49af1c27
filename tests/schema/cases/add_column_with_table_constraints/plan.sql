ALTER TABLE mcp_servers ADD COLUMN profile_id TEXT REFERENCES profiles(id);
ALTER TABLE mcp_servers ADD COLUMN rank INTEGER DEFAULT 0 CHECK (rank >= 0);
