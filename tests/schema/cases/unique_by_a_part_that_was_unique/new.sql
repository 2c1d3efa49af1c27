CREATE TABLE users (id INTEGER PRIMARY KEY, email TEXT, site INTEGER, UNIQUE (email, site), UNIQUE (id, site));
CREATE INDEX users_site_email ON users (site, email);
