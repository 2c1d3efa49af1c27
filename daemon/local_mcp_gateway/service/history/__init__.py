"""What happened before: the log, the log of calls, and the starts."""
