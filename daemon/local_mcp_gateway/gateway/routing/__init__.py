"""Route messages between clients and servers, in both directions."""
