"""The lists that servers offer, and how a profile merges, names and approves them. Pure."""
