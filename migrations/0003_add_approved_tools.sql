CREATE TABLE approved_tools (
	mcp_server_id TEXT NOT NULL,
	tool_name TEXT NOT NULL,
	body TEXT NOT NULL,
	approved_at INTEGER NOT NULL,
	PRIMARY KEY (mcp_server_id, tool_name),
	FOREIGN KEY(mcp_server_id) REFERENCES mcp_servers (id) ON DELETE CASCADE
);
