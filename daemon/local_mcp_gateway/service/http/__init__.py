"""The HTTP server: its listening socket, its connection protocol and its shutdown."""
