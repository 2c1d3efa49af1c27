"""HTTP endpoints for clients: Streamable HTTP, legacy SSE, health and metrics."""
