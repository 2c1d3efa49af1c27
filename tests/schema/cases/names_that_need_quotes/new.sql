CREATE TABLE "order" (
  "group" TEXT,
  "a b" TEXT NOT NULL DEFAULT 'it''s',
  [c"d] TEXT
);
CREATE INDEX "by group" ON "order"("group");
