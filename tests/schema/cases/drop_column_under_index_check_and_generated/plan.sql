-- rebuild: orders
-- deletes_data: orders.net
-- breaks_running_version: orders.net
-- drops_index: orders_net
-- drops_index: orders_gross
DROP INDEX orders_net;
DROP INDEX orders_gross;
CREATE TABLE __new_orders (id INTEGER PRIMARY KEY, tax INTEGER);
INSERT INTO __new_orders (id, tax) SELECT id, tax FROM orders;
DROP TABLE orders;
ALTER TABLE __new_orders RENAME TO orders;
CREATE TRIGGER order_paid AFTER UPDATE OF tax ON orders BEGIN UPDATE orders SET tax = 1 WHERE id = new.id; END;
