DROP VIEW v;
CREATE VIEW v AS SELECT id, name FROM mcp_servers;
