-- adds_unique: users(email)
CREATE UNIQUE INDEX users_email ON users (email) WHERE deleted IS NULL;
