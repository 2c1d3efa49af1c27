"""The servers: each one's life, the ways to reach it, and the calls on their way to it."""
