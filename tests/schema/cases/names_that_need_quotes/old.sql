CREATE TABLE "order" (
  "group" TEXT,
  "a b" TEXT
);
CREATE INDEX "by group" ON "order"("group");
