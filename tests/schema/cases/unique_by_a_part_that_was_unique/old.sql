CREATE TABLE users (id INTEGER PRIMARY KEY, email TEXT UNIQUE, site INTEGER);
CREATE UNIQUE INDEX users_email_site ON users (email, site);
CREATE INDEX users_site ON users (site);
