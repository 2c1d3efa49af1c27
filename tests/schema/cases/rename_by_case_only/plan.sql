ALTER TABLE Users RENAME TO __renamed_users;
ALTER TABLE __renamed_users RENAME TO users;
ALTER TABLE users RENAME COLUMN Name TO name;
