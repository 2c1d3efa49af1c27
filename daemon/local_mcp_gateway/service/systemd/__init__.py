"""systemd's user manager: this installation's units, systemctl, and sd_notify."""
