"""The running service: it introduces guard, database and gateway to each other, and to systemd."""
