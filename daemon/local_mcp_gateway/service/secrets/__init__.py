"""The keys of the stored secrets, and sealing values with them."""

from typing import TYPE_CHECKING

from local_mcp_gateway.lazy import exports

if TYPE_CHECKING:
    from local_mcp_gateway.service.secrets.bucket_keys import BucketKeys, seal_keys
    from local_mcp_gateway.service.secrets.keyring import (
        CREDENTIAL,
        Keyring,
        check_secrets,
        make_first_key,
    )
    from local_mcp_gateway.service.secrets.private_file import Unusable
    from local_mcp_gateway.service.secrets.sealing import (
        SealedSignIns,
        seal_all,
        seal_new,
        seal_values,
    )
else:
    __getattr__ = exports(
        __name__,
        bucket_keys=("BucketKeys", "seal_keys"),
        keyring=("CREDENTIAL", "Keyring", "check_secrets", "make_first_key"),
        private_file=("Unusable",),
        sealing=("SealedSignIns", "seal_all", "seal_new", "seal_values"),
    )

__all__ = [
    "CREDENTIAL",
    "BucketKeys",
    "Keyring",
    "SealedSignIns",
    "Unusable",
    "check_secrets",
    "make_first_key",
    "seal_all",
    "seal_keys",
    "seal_new",
    "seal_values",
]
