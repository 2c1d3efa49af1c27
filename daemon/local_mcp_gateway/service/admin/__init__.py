"""The operations behind commands and the REST API: run by the daemon, or offline when there is none."""
