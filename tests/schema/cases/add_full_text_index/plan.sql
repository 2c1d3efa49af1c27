CREATE VIRTUAL TABLE search USING fts5(name, content='mcp_servers');
INSERT INTO search (search) VALUES ('rebuild');
