-- deletes_data: v
-- breaks_running_version: v
DROP TABLE v;
CREATE VIEW v AS SELECT id FROM mcp_servers;
