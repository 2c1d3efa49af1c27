"""Relay MCP between clients and the upstream servers of a profile, envelope by envelope."""
