CREATE TABLE `posts` (
	`a` integer,
	`b` text,
	CONSTRAINT `posts_pk` PRIMARY KEY(`a`, `b`),
	CONSTRAINT `fk_posts_a_users_id_fk` FOREIGN KEY (`a`) REFERENCES `users`(`id`) ON DELETE CASCADE
);
--> statement-breakpoint
CREATE TABLE `users` (
	`id` integer PRIMARY KEY AUTOINCREMENT,
	`email` text NOT NULL UNIQUE,
	`name` text DEFAULT 'it''s',
	`n` integer DEFAULT 1 NOT NULL,
	`b` integer DEFAULT true,
	`c` integer DEFAULT (unixepoch()),
	`d` text DEFAULT CURRENT_TIMESTAMP,
	`g` text GENERATED ALWAYS AS (lower(email)) STORED,
	`r` real DEFAULT 1.5,
	`bl` blob,
	CONSTRAINT `uq` UNIQUE(`name`,`n`),
	CONSTRAINT "ck" CHECK("n" > 0)
);
--> statement-breakpoint
CREATE INDEX `i1` ON `users` (lower("email"),`n`);--> statement-breakpoint
CREATE UNIQUE INDEX `i2` ON `users` (`name`) WHERE n > 1;--> statement-breakpoint
CREATE VIEW `v` AS select "id", "email", "name", "n", "b", "c", "d", "g", "r", "bl" from "users";