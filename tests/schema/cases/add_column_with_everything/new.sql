CREATE TABLE profiles (
  id TEXT PRIMARY KEY NOT NULL
);
CREATE TABLE mcp_servers (
  id TEXT PRIMARY KEY NOT NULL,
  name TEXT NOT NULL,
  url TEXT,
  kind TEXT NOT NULL DEFAULT 'http' COLLATE NOCASE CHECK (kind IN ('http', 'stdio')),
  profile_id TEXT REFERENCES profiles(id) ON DELETE SET NULL,
  shout TEXT GENERATED ALWAYS AS (upper(name)) VIRTUAL
);
