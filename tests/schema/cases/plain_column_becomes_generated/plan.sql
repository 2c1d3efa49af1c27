-- rebuild: lines
-- deletes_data: lines.total
-- breaks_running_version: lines.total
CREATE TABLE __new_lines (id INTEGER PRIMARY KEY, amount INTEGER, price REAL, total REAL AS (amount * price) STORED);
INSERT INTO __new_lines (id, amount, price) SELECT id, amount, price FROM lines;
DROP TABLE lines;
ALTER TABLE __new_lines RENAME TO lines;
