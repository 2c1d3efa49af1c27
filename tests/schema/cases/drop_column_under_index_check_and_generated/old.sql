CREATE TABLE orders (id INTEGER PRIMARY KEY, net INTEGER, tax INTEGER, gross INTEGER AS (net + tax) VIRTUAL, CHECK (net > 0 OR tax > 0));
CREATE INDEX orders_net ON orders (net);
CREATE INDEX orders_gross ON orders (gross) WHERE net IS NOT NULL;
CREATE TRIGGER order_paid AFTER UPDATE OF net ON orders BEGIN UPDATE orders SET tax = new.net WHERE id = new.id; END;
