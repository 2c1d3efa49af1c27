"""What the gateway is told from outside: limits and names, in seconds and bytes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GatewayOptions:
    """The settings that matter to the gateway; the service fills them from `gateway.toml`."""

    default_profile: str = "default"
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    connect_timeout_s: float = 30.0
    call_timeout_s: float = 300.0
    list_timeout_s: float = 10.0
    idle_stop_s: float = 900.0
    backoff_max_s: float = 60.0
    max_message_bytes: int = 64 * 1024 * 1024
    hold_altered_tools: bool = False
    hold_new_tools: bool = False
    max_request_bytes: int = 64 * 1024 * 1024
    keepalive_s: float = 15.0
    log_payloads: bool = False
    keep_calls: int = 10_000
