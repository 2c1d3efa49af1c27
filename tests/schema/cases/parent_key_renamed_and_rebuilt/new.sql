-- rename: countries.code=countries.slug
CREATE TABLE countries (slug TEXT PRIMARY KEY, size TEXT);
CREATE TABLE towns (id INTEGER PRIMARY KEY, country TEXT REFERENCES countries(slug) ON UPDATE CASCADE, twin TEXT REFERENCES countries);
