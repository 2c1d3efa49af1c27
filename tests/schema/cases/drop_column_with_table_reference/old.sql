CREATE TABLE profiles (
  id TEXT PRIMARY KEY NOT NULL
);
CREATE TABLE mcp_servers (
  id TEXT PRIMARY KEY NOT NULL,
  name TEXT NOT NULL,
  profile_id TEXT,
  FOREIGN KEY (profile_id) REFERENCES profiles(id)
);
