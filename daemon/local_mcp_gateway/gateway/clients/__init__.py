"""The clients: who may come, what each said of itself, and what waits for it."""
