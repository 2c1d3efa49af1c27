-- rename: users.title=users.name
CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT, email TEXT NOT NULL DEFAULT '');
CREATE INDEX users_title ON users (name);
