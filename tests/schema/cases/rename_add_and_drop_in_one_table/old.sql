CREATE TABLE users (id INTEGER PRIMARY KEY, title TEXT, fax TEXT);
CREATE INDEX users_title ON users (title);
