CREATE TABLE tags (name TEXT, colour TEXT);
