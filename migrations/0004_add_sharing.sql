ALTER TABLE mcp_servers ADD COLUMN share TEXT NOT NULL DEFAULT 'auto' CHECK (share IN ('auto', 'always', 'never'));--> statement-breakpoint
ALTER TABLE mcp_servers ADD COLUMN max_clients INTEGER CHECK (max_clients > 0);--> statement-breakpoint
ALTER TABLE mcp_servers ADD COLUMN idle_stop_s INTEGER CHECK (idle_stop_s >= 0);
