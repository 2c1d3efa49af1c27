CREATE TABLE profiles (
  id TEXT PRIMARY KEY NOT NULL
);
CREATE TABLE mcp_servers (
  id TEXT PRIMARY KEY NOT NULL,
  name TEXT NOT NULL,
  url TEXT,
  profile_id TEXT,
  rank INTEGER DEFAULT 0,
  CHECK (rank >= 0),
  FOREIGN KEY (profile_id) REFERENCES profiles(id)
);
