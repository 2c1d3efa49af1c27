-- rename: servers_v2=servers
CREATE TABLE servers (id INTEGER PRIMARY KEY, url TEXT NOT NULL);
CREATE TABLE calls (id INTEGER PRIMARY KEY, server INTEGER REFERENCES servers(id));
