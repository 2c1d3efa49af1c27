CREATE TABLE mcp_servers (
  id TEXT PRIMARY KEY NOT NULL,
  name TEXT NOT NULL,
  url TEXT,
  shout TEXT GENERATED ALWAYS AS (upper(name)) STORED
);
