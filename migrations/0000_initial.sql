-- The gateway's own schema. Times are integer milliseconds since 1970 (UTC); lists and maps are JSON text.
CREATE TABLE profiles (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    description TEXT,
    prefix TEXT DEFAULT 'auto' NOT NULL CHECK (prefix IN ('auto', 'always', 'never')),
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
);
--> statement-breakpoint
CREATE TABLE mcp_servers (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL CHECK (kind IN ('stdio', 'http', 'sse')),
    command TEXT,
    args TEXT DEFAULT '[]' NOT NULL,
    env TEXT DEFAULT '{}' NOT NULL,
    cwd TEXT,
    url TEXT,
    headers TEXT DEFAULT '{}' NOT NULL,
    active INTEGER DEFAULT 1 NOT NULL CHECK (active IN (0, 1)),
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    CHECK ((kind = 'stdio') = (command IS NOT NULL)),
    CHECK ((kind <> 'stdio') = (url IS NOT NULL))
);
--> statement-breakpoint
CREATE TABLE profile_mcp_servers (
    profile_id TEXT NOT NULL REFERENCES profiles (id) ON DELETE CASCADE,
    mcp_server_id TEXT NOT NULL REFERENCES mcp_servers (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    active INTEGER DEFAULT 1 NOT NULL CHECK (active IN (0, 1)),
    PRIMARY KEY (profile_id, mcp_server_id)
);
--> statement-breakpoint
CREATE INDEX profile_mcp_servers_by_server ON profile_mcp_servers (mcp_server_id);
--> statement-breakpoint
-- What a profile changes about one tool of one server: hides it, or shows it under another name.
CREATE TABLE profile_mcp_server_tools (
    profile_id TEXT NOT NULL,
    mcp_server_id TEXT NOT NULL,
    tool_name TEXT NOT NULL,
    enabled INTEGER DEFAULT 1 NOT NULL CHECK (enabled IN (0, 1)),
    custom_name TEXT,
    custom_description TEXT,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (profile_id, mcp_server_id, tool_name),
    FOREIGN KEY (profile_id, mcp_server_id)
        REFERENCES profile_mcp_servers (profile_id, mcp_server_id) ON DELETE CASCADE
);
--> statement-breakpoint
-- The last known catalog of a server, one row for each list method; served before the server is up.
CREATE TABLE mcp_server_catalog_cache (
    mcp_server_id TEXT NOT NULL REFERENCES mcp_servers (id) ON DELETE CASCADE,
    kind TEXT NOT NULL CHECK (kind IN ('initialize', 'tools', 'resources', 'resource_templates', 'prompts')),
    body TEXT NOT NULL,
    hash TEXT NOT NULL,
    fetched_at INTEGER NOT NULL,
    PRIMARY KEY (mcp_server_id, kind)
);
--> statement-breakpoint
CREATE TABLE gateway_settings (
    key TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL,
    updated_at INTEGER NOT NULL
);
