"""Clients of the gateway: origin checks, sessions, subscriptions and resumable streams."""
