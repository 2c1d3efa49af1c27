-- rename: sites=pages
-- rename: pages.path=pages.url
-- rename: hits.path=hits.link
CREATE TABLE pages (host TEXT, url TEXT, PRIMARY KEY (host, url));
CREATE TABLE hits (host TEXT, link TEXT, at TEXT, weight INTEGER NOT NULL DEFAULT 1, FOREIGN KEY (host, link) REFERENCES pages (host, url) ON DELETE CASCADE);
CREATE INDEX hits_by_place ON hits (host || link, at COLLATE NOCASE DESC) WHERE at LIKE '2%';
