-- guard: accept deletes_data
ALTER TABLE debug_logs DROP COLUMN holder;--> statement-breakpoint
ALTER TABLE debug_logs DROP COLUMN client;--> statement-breakpoint
DROP TABLE client_tokens;
