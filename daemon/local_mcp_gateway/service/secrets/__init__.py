"""The encryption keys of stored secrets, and sealing and opening secrets with them."""
