"""MCP on the wire: JSON-RPC envelopes, protocol versions, line framing and SSE. Pure."""
