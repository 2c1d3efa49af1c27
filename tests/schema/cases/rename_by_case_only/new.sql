-- rename: Users=users
-- rename: users.Name=users.name
CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT);
CREATE TABLE pets (id INTEGER PRIMARY KEY, owner INTEGER REFERENCES users(id));
