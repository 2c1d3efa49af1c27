"""systemd's user manager: the units of this installation, and what is told to it."""
