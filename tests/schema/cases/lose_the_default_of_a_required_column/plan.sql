-- rebuild: jobs
-- breaks_running_version: jobs.state
CREATE TABLE __new_jobs (id INTEGER PRIMARY KEY, state TEXT NOT NULL);
INSERT INTO __new_jobs (id, state) SELECT id, state FROM jobs;
DROP TABLE jobs;
ALTER TABLE __new_jobs RENAME TO jobs;
