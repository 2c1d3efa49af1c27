-- breaks_running_version: search
ALTER TABLE search RENAME TO full_text;
