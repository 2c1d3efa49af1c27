"""The command line: one file a command group; results on stdout, everything else on stderr."""
