-- What the laboratory seeds: rows for two tables, one of which a trigger fills further. Repeatable.
INSERT INTO parents (id, name) VALUES (900, 'seeded') ON CONFLICT DO NOTHING;
INSERT INTO children (id, parent_id, name) VALUES (900, 900, 'seeded') ON CONFLICT DO NOTHING;
INSERT INTO notes (id, body) SELECT id + 2000, 'seeded ' || name FROM parents WHERE true ON CONFLICT DO NOTHING;
