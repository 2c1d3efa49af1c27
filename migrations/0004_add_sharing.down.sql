-- guard: accept deletes_data
ALTER TABLE mcp_servers DROP COLUMN share;--> statement-breakpoint
ALTER TABLE mcp_servers DROP COLUMN max_clients;--> statement-breakpoint
ALTER TABLE mcp_servers DROP COLUMN idle_stop_s;
