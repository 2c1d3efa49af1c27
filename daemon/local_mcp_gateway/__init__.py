"""Local MCP Gateway: one guarded process for all MCP servers of a machine."""

__version__ = "0.1.0"
