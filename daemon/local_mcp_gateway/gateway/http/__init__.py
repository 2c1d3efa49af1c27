"""The doors for clients: Streamable HTTP, the legacy stream, stdio, health and metrics."""
