-- What the gateway holds to sign in at upstream servers. `sealed` columns are encrypted (AES-GCM).
CREATE TABLE oauth_client_registrations (
    mcp_server_id TEXT NOT NULL REFERENCES mcp_servers (id) ON DELETE CASCADE,
    issuer TEXT NOT NULL,
    client_id TEXT NOT NULL,
    sealed_client_secret BLOB,
    metadata TEXT DEFAULT '{}' NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (mcp_server_id, issuer)
);
--> statement-breakpoint
CREATE TABLE oauth_tokens (
    mcp_server_id TEXT NOT NULL PRIMARY KEY REFERENCES mcp_servers (id) ON DELETE CASCADE,
    sealed_access_token BLOB NOT NULL,
    sealed_refresh_token BLOB,
    token_type TEXT DEFAULT 'Bearer' NOT NULL,
    scope TEXT,
    expires_at INTEGER,
    updated_at INTEGER NOT NULL
);
