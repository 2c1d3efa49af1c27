"""What happened before: starts, events and calls, found again and laid out for people."""
