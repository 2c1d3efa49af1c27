CREATE TABLE users (id INTEGER PRIMARY KEY, nick TEXT, name TEXT NOT NULL);
CREATE INDEX users_name ON users (name);
