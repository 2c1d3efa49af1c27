-- rebuild: "Straße"
CREATE TABLE "__new_Straße" (id INTEGER PRIMARY KEY, "größe" TEXT, "naïve ""n""ame" TEXT);
INSERT INTO "__new_Straße" (id, "größe") SELECT id, "größe" FROM "Straße";
DROP TABLE "Straße";
ALTER TABLE "__new_Straße" RENAME TO "Straße";
CREATE INDEX "ïx" ON "Straße" ("größe");
