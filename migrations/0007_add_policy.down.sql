-- guard: accept deletes_data
ALTER TABLE profiles DROP COLUMN allowed_tools;--> statement-breakpoint
ALTER TABLE profiles DROP COLUMN denied_tools;--> statement-breakpoint
ALTER TABLE profiles DROP COLUMN read_only;--> statement-breakpoint
ALTER TABLE profiles DROP COLUMN calls_per_minute;--> statement-breakpoint
ALTER TABLE profiles DROP COLUMN calls_at_once;--> statement-breakpoint
ALTER TABLE mcp_servers DROP COLUMN trust_annotations;--> statement-breakpoint
ALTER TABLE client_tokens DROP COLUMN allowed_tools;--> statement-breakpoint
ALTER TABLE client_tokens DROP COLUMN denied_tools;--> statement-breakpoint
ALTER TABLE client_tokens DROP COLUMN read_only;--> statement-breakpoint
ALTER TABLE client_tokens DROP COLUMN calls_per_minute;--> statement-breakpoint
ALTER TABLE client_tokens DROP COLUMN calls_at_once;
