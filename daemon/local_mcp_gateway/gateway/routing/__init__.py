"""Between clients and servers: where each message belongs, in either direction."""
