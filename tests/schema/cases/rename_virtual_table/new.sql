-- rename: search=full_text
CREATE VIRTUAL TABLE full_text USING fts5(title, body);
