"""The command line: one module per command group; results on stdout, everything else on stderr."""
