"""Sign in to servers with OAuth: discovery, login, and tokens that are refreshed before they expire."""

from typing import TYPE_CHECKING

from local_mcp_gateway.lazy import exports

if TYPE_CHECKING:
    from local_mcp_gateway.gateway.oauth.login import (
        PendingLogin,
        begin_login,
        finish_login,
        revoke,
    )
    from local_mcp_gateway.gateway.oauth.tokens import SignInStore, TokenSource
    from local_mcp_gateway.gateway.oauth.web import OAuthProblem
else:
    __getattr__ = exports(
        __name__,
        login=("PendingLogin", "begin_login", "finish_login", "revoke"),
        tokens=("SignInStore", "TokenSource"),
        web=("OAuthProblem",),
    )

__all__ = [
    "OAuthProblem",
    "PendingLogin",
    "SignInStore",
    "TokenSource",
    "begin_login",
    "finish_login",
    "revoke",
]
