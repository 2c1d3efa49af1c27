"""`python -m local_mcp_gateway` is the command `local-mcp-gateway`."""

from local_mcp_gateway.cli.main import main

main()
