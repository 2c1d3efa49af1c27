"""Proxy MCP between clients and the upstream servers of a profile."""
