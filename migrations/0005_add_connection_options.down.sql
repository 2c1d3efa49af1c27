-- guard: accept deletes_data
ALTER TABLE mcp_servers DROP COLUMN timeout_s;--> statement-breakpoint
ALTER TABLE mcp_servers DROP COLUMN proxy;--> statement-breakpoint
ALTER TABLE mcp_servers DROP COLUMN ca;--> statement-breakpoint
ALTER TABLE mcp_servers DROP COLUMN insecure;--> statement-breakpoint
ALTER TABLE mcp_servers DROP COLUMN client_headers;
