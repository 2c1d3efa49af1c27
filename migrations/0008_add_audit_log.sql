CREATE TABLE audit_log (
	id INTEGER NOT NULL,
	at INTEGER NOT NULL,
	who TEXT NOT NULL,
	client TEXT,
	action TEXT NOT NULL,
	object TEXT,
	outcome TEXT NOT NULL,
	detail TEXT,
	PRIMARY KEY (id)
);--> statement-breakpoint
CREATE INDEX audit_log_by_time ON audit_log (at);
