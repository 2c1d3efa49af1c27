CREATE TABLE sites (host TEXT, path TEXT, PRIMARY KEY (host, path));
CREATE TABLE hits (host TEXT, path TEXT, at TEXT, FOREIGN KEY (host, path) REFERENCES sites (host, path) ON DELETE CASCADE);
CREATE INDEX hits_by_place ON hits (host || path, at COLLATE NOCASE DESC) WHERE at LIKE '2%';
