-- guard: accept deletes_data
DROP TABLE approved_tools;
