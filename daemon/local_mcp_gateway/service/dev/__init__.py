"""Dev mode: inside the worker, where saves are applied, and around it, where code is reloaded."""
