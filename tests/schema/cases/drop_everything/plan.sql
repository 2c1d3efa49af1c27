-- deletes_data: profiles
-- breaks_running_version: profiles
-- deletes_data: mcp_servers
-- breaks_running_version: mcp_servers
-- deletes_data: f
-- breaks_running_version: f
-- breaks_running_version: v
DROP VIEW v;
DROP TABLE f;
CREATE TABLE left_over (
  id INTEGER PRIMARY KEY
);
DROP TABLE mcp_servers;
DROP TABLE profiles;
