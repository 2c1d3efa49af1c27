CREATE TABLE `posts` (
	`a` integer,
	`b` text,
	PRIMARY KEY(`a`, `b`),
	FOREIGN KEY (`a`) REFERENCES `users`(`id`) ON UPDATE no action ON DELETE cascade
);
--> statement-breakpoint
CREATE TABLE `users` (
	`id` integer PRIMARY KEY AUTOINCREMENT NOT NULL,
	`email` text NOT NULL,
	`name` text DEFAULT 'it''s',
	`n` integer DEFAULT 1 NOT NULL,
	`b` integer DEFAULT true,
	`c` integer DEFAULT (unixepoch()),
	`d` text DEFAULT CURRENT_TIMESTAMP,
	`g` text GENERATED ALWAYS AS (lower(email)) STORED,
	`r` real DEFAULT 1.5,
	`bl` blob,
	CONSTRAINT "ck" CHECK("users"."n" > 0)
);
--> statement-breakpoint
CREATE UNIQUE INDEX `users_email_unique` ON `users` (`email`);--> statement-breakpoint
CREATE INDEX `i1` ON `users` (lower("email"),`n`);--> statement-breakpoint
CREATE UNIQUE INDEX `i2` ON `users` (`name`) WHERE n > 1;--> statement-breakpoint
CREATE UNIQUE INDEX `uq` ON `users` (`name`,`n`);--> statement-breakpoint
CREATE VIEW `v` AS select "id", "email", "name", "n", "b", "c", "d", "g", "r", "bl" from "users";