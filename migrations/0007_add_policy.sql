ALTER TABLE profiles ADD COLUMN allowed_tools TEXT NOT NULL DEFAULT '[]';--> statement-breakpoint
ALTER TABLE profiles ADD COLUMN denied_tools TEXT NOT NULL DEFAULT '[]';--> statement-breakpoint
ALTER TABLE profiles ADD COLUMN read_only INTEGER NOT NULL DEFAULT 0 CHECK (read_only IN (0, 1));--> statement-breakpoint
ALTER TABLE profiles ADD COLUMN calls_per_minute INTEGER CHECK (calls_per_minute > 0);--> statement-breakpoint
ALTER TABLE profiles ADD COLUMN calls_at_once INTEGER CHECK (calls_at_once > 0);--> statement-breakpoint
ALTER TABLE mcp_servers ADD COLUMN trust_annotations INTEGER NOT NULL DEFAULT 0 CHECK (trust_annotations IN (0, 1));--> statement-breakpoint
ALTER TABLE client_tokens ADD COLUMN allowed_tools TEXT NOT NULL DEFAULT '[]';--> statement-breakpoint
ALTER TABLE client_tokens ADD COLUMN denied_tools TEXT NOT NULL DEFAULT '[]';--> statement-breakpoint
ALTER TABLE client_tokens ADD COLUMN read_only INTEGER NOT NULL DEFAULT 0 CHECK (read_only IN (0, 1));--> statement-breakpoint
ALTER TABLE client_tokens ADD COLUMN calls_per_minute INTEGER CHECK (calls_per_minute > 0);--> statement-breakpoint
ALTER TABLE client_tokens ADD COLUMN calls_at_once INTEGER CHECK (calls_at_once > 0);
