"""What servers offer and what a profile shows of it: union, names, approval. Pure."""
