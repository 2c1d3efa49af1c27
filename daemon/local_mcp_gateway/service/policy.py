"""Settings as guard and gateway need them: they take values and never see Settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from local_mcp_gateway import __version__
from local_mcp_gateway.backup.retention import Retention
from local_mcp_gateway.guard.context import GuardPolicy

if TYPE_CHECKING:
    from local_mcp_gateway.config import Settings
    from local_mcp_gateway.gateway.options import GatewayOptions


def guard_policy(
    settings: Settings,
    *,
    to: str | None = None,
    allow_out_of_order: bool = False,
    dev: bool = False,
) -> GuardPolicy:
    """Return what the settings and one command's options ask of the guard."""
    return GuardPolicy(
        rehearse=settings.guard.rehearse,  # type: ignore[arg-type]  # a closed set, checked by config
        destructive=settings.guard.destructive,  # type: ignore[arg-type]
        drift=settings.guard.drift,  # type: ignore[arg-type]
        backup_folder=settings.backup_folder,
        retention=Retention(settings.backup.keep_last, settings.backup.keep_daily_days),
        functions=settings.migrations.functions,
        quick_check_limit_s=settings.guard.quick_check_limit_s,
        allow_out_of_order=allow_out_of_order,
        to=to,
        dev=dev,
        keep_aside=settings.backup.keep_aside,
        program_version=__version__,
    )


def gateway_options(settings: Settings) -> GatewayOptions:
    """Return the values that the gateway needs."""
    from local_mcp_gateway.gateway.options import GatewayOptions

    return GatewayOptions(
        default_profile=settings.gateway.default_profile,
        allowed_hosts=settings.gateway.allowed_hosts,
        allowed_origins=settings.gateway.allowed_origins,
        connect_timeout_s=settings.upstream.connect_timeout_s,
        call_timeout_s=settings.upstream.call_timeout_s,
        list_timeout_s=settings.upstream.list_timeout_s,
        idle_stop_s=settings.upstream.idle_stop_s,
        backoff_max_s=settings.upstream.backoff_max_s,
        log_payloads=settings.log.payloads,
        keep_calls=settings.log.keep_calls,
        hold_altered_tools=settings.upstream.altered_tools == "hold",
        hold_new_tools=settings.upstream.new_tools == "hold",
        max_message_bytes=settings.upstream.max_message_bytes,
    )
