"""Certificates for the tests, each its own issuer, in files as a person keeps them."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

LOCAL = ("localhost", "127.0.0.1")


@dataclass(frozen=True, slots=True)
class Files:
    """A certificate and its key."""

    cert: Path
    key: Path

    @property
    def settings(self) -> dict[str, str]:
        return {"LMG_GATEWAY__TLS_CERT": str(self.cert), "LMG_GATEWAY__TLS_KEY": str(self.key)}

    @property
    def trust(self) -> ssl.SSLContext:
        """Return what a client has that trusts this certificate alone."""
        return ssl.create_default_context(cafile=self.cert)

    def replace(self, other: Files) -> None:
        """Put another certificate into these files, as who renews it does."""
        self.key.write_bytes(other.key.read_bytes())
        self.cert.write_bytes(other.cert.read_bytes())


def make_certificate(
    folder: Path, *names: str, days: float = 30, begins: float = -1, passphrase: str = ""
) -> Files:
    """Make a certificate for these names, valid from `begins` to `days` days from now."""
    folder.mkdir(parents=True, exist_ok=True)
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    # In whole minutes, so that a renewed one ends as the one before does, as those of some issuers do.
    ends = (now + timedelta(days=days)).replace(second=0, microsecond=0)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a gateway")])
    identity = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=min(begins, days - 1)))
        .not_valid_after(ends)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(identity, critical=False)
    )
    if names:
        general = [_general(name) for name in names]
        builder = builder.add_extension(x509.SubjectAlternativeName(general), critical=False)
    files = Files(folder / "cert.pem", folder / "key.pem")
    files.cert.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
    sealed = BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
    files.key.touch(0o600)
    files.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, sealed))
    return files


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)
