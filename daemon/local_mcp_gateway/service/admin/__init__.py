"""What commands and the REST interface ask for: done by the daemon if there is one, else without it."""
