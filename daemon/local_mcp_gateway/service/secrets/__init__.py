"""The key of the stored secrets, and what seals and opens them with it."""
