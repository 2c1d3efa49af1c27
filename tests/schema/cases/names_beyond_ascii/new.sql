CREATE TABLE "Straße" (id INTEGER PRIMARY KEY, "größe" TEXT, "naïve ""n""ame" TEXT);
CREATE INDEX "ïx" ON "Straße" ("größe");
