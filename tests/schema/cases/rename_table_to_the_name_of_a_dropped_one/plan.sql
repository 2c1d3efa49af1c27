-- breaks_running_version: servers_v2
-- deletes_data: servers
-- breaks_running_version: servers
DROP TABLE servers;
ALTER TABLE servers_v2 RENAME TO servers;
