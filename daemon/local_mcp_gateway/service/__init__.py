"""The running service: starts and stops the guard, the database, the gateway and the HTTP server."""
