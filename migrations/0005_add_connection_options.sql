ALTER TABLE mcp_servers ADD COLUMN timeout_s INTEGER CHECK (timeout_s > 0);--> statement-breakpoint
ALTER TABLE mcp_servers ADD COLUMN proxy TEXT;--> statement-breakpoint
ALTER TABLE mcp_servers ADD COLUMN ca TEXT;--> statement-breakpoint
ALTER TABLE mcp_servers ADD COLUMN insecure INTEGER NOT NULL DEFAULT 0 CHECK (insecure IN (0, 1));--> statement-breakpoint
ALTER TABLE mcp_servers ADD COLUMN client_headers TEXT NOT NULL DEFAULT '[]';
