-- rebuild: users
DROP INDEX users_email_site;
DROP INDEX users_site;
CREATE TABLE __new_users (id INTEGER PRIMARY KEY, email TEXT, site INTEGER, UNIQUE (email, site), UNIQUE (id, site));
INSERT INTO __new_users (id, email, site) SELECT id, email, site FROM users;
DROP TABLE users;
ALTER TABLE __new_users RENAME TO users;
CREATE INDEX users_site_email ON users (site, email);
