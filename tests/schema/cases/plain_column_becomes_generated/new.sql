CREATE TABLE lines (id INTEGER PRIMARY KEY, amount INTEGER, price REAL, total REAL AS (amount * price) STORED);
