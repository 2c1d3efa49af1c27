"""Options of the gateway: limits in seconds and bytes, and names."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(slots=True, kw_only=True)
class GatewayOptions:
    """The settings that the gateway uses; the service fills them from `gateway.toml`.

    All parts of a gateway share one object and read it when they need a value: a reload changes it.
    """

    default_profile: str
    allowed_hosts: tuple[str, ...]
    allowed_origins: tuple[str, ...]
    connect_timeout_s: float
    call_timeout_s: float
    list_timeout_s: float
    idle_stop_s: float
    backoff_max_s: float
    max_message_bytes: int
    hold_altered_tools: bool
    hold_new_tools: bool
    log_payloads: bool
    keep_calls: int
    require_token: bool = False
    """Whether each request has to show a token; the gateway's own commands never do."""
    private_files: tuple[str, ...] = ()
    """Files and folders of the gateway's own that no server in a sandbox may read."""
    max_request_bytes: int = 64 * 1024 * 1024
    keepalive_s: float = 15.0

    def take(self, new: GatewayOptions) -> None:
        """Take over every value of other options."""
        for option in fields(new):
            setattr(self, option.name, getattr(new, option.name))
