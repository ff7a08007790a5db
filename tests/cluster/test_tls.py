"""Goal: certificates are checked, and a password is sent over TLS alone where the address says so.

Method: one real node with a certificate made for the test.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
from typing import TYPE_CHECKING

import pytest

from sqlstate import Busy, cluster
from tests.cluster.nodes import HOST, SECONDS, Cluster

if TYPE_CHECKING:
    from pathlib import Path

x509 = pytest.importorskip("cryptography.x509")
hashes = pytest.importorskip("cryptography.hazmat.primitives.hashes")
serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
ec = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ec")
pytestmark = pytest.mark.cluster


def certificate(folder: Path) -> tuple[str, str]:
    """Make a certificate for this machine; return the paths of it and of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "node")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "node.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "node.key").write_bytes(key.private_bytes(*form))
    return str(folder / "node.pem"), str(folder / "node.key")


def test_a_certificate_is_checked(tmp_path: Path) -> None:
    public, key = certificate(tmp_path)
    nodes = Cluster(tmp_path, ("-http-cert", public, "-http-key", key))
    try:
        nodes.nodes[0].start("")
        url = [nodes.urls[0]]
        assert url[0].startswith("https:")
        nodes.wait(lambda: _opens(url, public))
        with cluster.open(url, tls=ssl.create_default_context(cafile=public), timeout=SECONDS) as store:
            assert store["a"][1] == 1
        with pytest.raises(Busy, match="CERTIFICATE_VERIFY_FAILED"):
            cluster.open(url, timeout=0.5)
    finally:
        nodes.stop()


def _opens(url: list[str], public: str) -> bool:
    try:
        with cluster.open(url, tls=public, timeout=2.0) as store:
            store["a"][1] = 1
    except Busy:
        return False
    return True
