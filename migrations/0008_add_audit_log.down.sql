-- guard: accept deletes_data
DROP TABLE audit_log;
