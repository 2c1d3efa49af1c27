CREATE TABLE client_tokens (
	id TEXT NOT NULL,
	name TEXT NOT NULL,
	hash TEXT NOT NULL,
	profiles TEXT,
	created_at INTEGER NOT NULL,
	expires_at INTEGER,
	last_used_at INTEGER,
	last_client TEXT,
	PRIMARY KEY (id),
	UNIQUE (name)
);--> statement-breakpoint
ALTER TABLE debug_logs ADD COLUMN holder TEXT;--> statement-breakpoint
ALTER TABLE debug_logs ADD COLUMN client TEXT;
