create table `mcp_servers`(ID text not null primary key, [name] text not null, url text);
