"""Dev mode: the supervisor restarts the worker when code changes; the worker applies saved migrations."""
