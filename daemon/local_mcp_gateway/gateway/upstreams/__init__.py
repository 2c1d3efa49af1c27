"""Upstream servers: connections, transports and the calls forwarded over them."""
