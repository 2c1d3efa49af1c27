-- One row for each call through the gateway. Names and not keys, so that the log outlives what it tells of.
CREATE TABLE debug_logs (
    id INTEGER NOT NULL PRIMARY KEY,
    created_at INTEGER NOT NULL,
    profile TEXT NOT NULL,
    server TEXT,
    method TEXT NOT NULL,
    target TEXT,
    status TEXT NOT NULL CHECK (status IN ('ok', 'error', 'cancelled', 'timeout')),
    error TEXT,
    duration_us INTEGER NOT NULL,
    request_bytes INTEGER NOT NULL,
    response_bytes INTEGER NOT NULL,
    request TEXT,
    response TEXT
);
--> statement-breakpoint
CREATE INDEX debug_logs_by_time ON debug_logs (created_at);
--> statement-breakpoint
CREATE INDEX debug_logs_by_server ON debug_logs (server, created_at);
