"""What MCP is on the wire: envelopes, its two eras, lines and server-sent events. Pure."""
