-- deletes_data: search
DROP TABLE search;
CREATE VIRTUAL TABLE search USING fts5(name, url);
