"""The HTTP server under the gateway: its socket, its responses, and its end."""
