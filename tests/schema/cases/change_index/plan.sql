-- drops_index: by_name
DROP INDEX by_name;
CREATE INDEX by_name ON mcp_servers(name DESC, url);
