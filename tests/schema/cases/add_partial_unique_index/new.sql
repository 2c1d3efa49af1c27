CREATE TABLE users (id INTEGER PRIMARY KEY, email TEXT, deleted INTEGER);
CREATE UNIQUE INDEX users_email ON users (email) WHERE deleted IS NULL;
