"""Certificates by which the processes of a cluster trust each other, and nobody else.

A Dask scheduler runs what any connection tells it to. With TLS required at both ends, only
processes that can read the private key connect: file permissions decide who may run code.
"""

from __future__ import annotations

import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml
from distributed.security import Security

from dsoftmax.errors import DataError, DsoftmaxError
from dsoftmax.runtime.environment import KEEP_MEMORY

# The names that Kubernetes and cert-manager give them in a Secret.
CERTIFICATE, KEY = "tls.crt", "tls.key"
CONFIGURATION = "dask.yaml"
_NAME = "dsoftmax-cluster"
_CLOCK_SKEW = timedelta(minutes=10)


def write_certificates(folder: Path, days: int = 365, at: Path | None = None) -> None:
    """Make the certificate and the private key of one cluster, for all of its processes.

    Parameters
    ----------
    folder : made if it is not there, for its owner only; the key is always that
    days : for which the certificate is valid
    at : where the processes of the cluster will see the folder; by default where it is

    Raises
    ------
    DataError
        If the folder holds a certificate or a key already, or is everyone's.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_mode & stat.S_IWOTH:
        raise DataError(f"{folder} can be written to by everyone; give a folder of your own")
    for name in (KEY, CERTIFICATE, CONFIGURATION):
        if (folder / name).exists():
            raise DataError(
                f"{folder / name} exists; a running cluster may need it: give another folder, or "
                "remove it"
            )
    key, certificate = _self_signed(days)
    _write(folder / KEY, key, 0o600)
    _write(folder / CERTIFICATE, certificate, 0o644)
    _write(folder / CONFIGURATION, _configuration(at or folder.resolve()).encode(), 0o644)


def _write(path: Path, content: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with open(descriptor, "wb") as file:
        file.write(content)


def _self_signed(days: int) -> tuple[bytes, bytes]:
    """Return a key and its certificate, which is its own authority, in PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _NAME)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(_NAME)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return private, certificate.public_bytes(serialization.Encoding.PEM)


def _configuration(folder: Path) -> str:
    """Return the Dask configuration of any process: the certificate, and what suits a worker."""
    certificate, key = str(folder / CERTIFICATE), str(folder / KEY)
    role = {"cert": certificate, "key": key}
    tls = {"ca-file": certificate, "scheduler": role, "worker": dict(role), "client": dict(role)}
    comm = {"require-encryption": True, "tls": tls}
    distributed = {"comm": comm, "nanny": {"pre-spawn-environ": dict(KEEP_MEMORY)}}
    return str(yaml.safe_dump({"distributed": distributed}))


def security_options(folder: Path) -> dict[str, object]:
    """Return what `distributed.Security` takes for the certificate in a folder: paths, no secret.

    Raises
    ------
    DsoftmaxError
        If the certificate or the key cannot be read.
    """
    certificate, key = ((folder / name).resolve() for name in (CERTIFICATE, KEY))
    for path in (certificate, key):
        if not os.access(path, os.R_OK):
            raise DsoftmaxError(
                f"{path} cannot be read; `dsoftmax certs {folder}` makes certificates, and a "
                "running cluster is reached with its own"
            )
    roles = ("client", "scheduler", "worker")
    return {
        "require_encryption": True,
        "tls_ca_file": str(certificate),
        **{f"tls_{role}_cert": str(certificate) for role in roles},
        **{f"tls_{role}_key": str(key) for role in roles},
    }


def security_of(folder: Path) -> Security:
    """Return the `distributed.Security` of the certificate in a folder; see `security_options`."""
    return Security(**security_options(folder))
