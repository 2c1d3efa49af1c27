"""Read what happened before: the log, the call log and the record of starts."""
