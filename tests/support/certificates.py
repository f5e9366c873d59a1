"""Certificates for tests, made by the openssl command."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

LOCALHOST = "subjectAltName=DNS:localhost"
_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@dataclass(frozen=True)
class Certificate:
    """A certificate and its key, in PEM."""

    cert: Path
    key: Path


def authority(directory: Path, name: str) -> Certificate:
    """An authority that signs others."""
    made = Certificate(directory / f"{name}.pem", directory / f"{name}.key")
    _openssl(
        *("req", "-x509", *_KEY, "-days", "2", "-subj", f"/CN={name}"),
        *("-addext", "keyUsage=critical,keyCertSign", "-keyout", made.key, "-out", made.cert),
    )
    return made


def signed(
    by: Certificate, directory: Path, name: str, hosts: str = "localhost", *, further: str = ""
) -> Certificate:
    """A certificate that an authority has signed, good for these hosts and 127.0.0.1.

    `further` are lines of other extensions.
    """
    made = Certificate(directory / f"{name}.pem", directory / f"{name}.key")
    request, extensions = directory / f"{name}.csr", directory / f"{name}.ext"
    names = [f"DNS:{host}" for host in hosts.split(",")]
    extensions.write_text(f"subjectAltName={','.join([*names, 'IP:127.0.0.1'])}\n{further}")
    _openssl("req", *_KEY, "-subj", f"/CN={name}", "-keyout", made.key, "-out", request)
    _openssl(
        *("x509", "-req", "-in", request, "-CA", by.cert, "-CAkey", by.key, "-days", "2"),
        *("-CAcreateserial", "-extfile", extensions, "-out", made.cert),
    )
    return made


def self_signed(
    directory: Path, *key: str, names: str = LOCALHOST, days: tuple[float, float] = (-1, 2)
) -> Certificate:
    """A certificate with this kind of key, valid between these days from now."""
    name = f"{len(list(directory.iterdir()))}"
    made = Certificate(directory / f"{name}.pem", directory / f"{name}.key")
    request = directory / f"{name}.csr"
    begin, end = (f"{datetime.now(UTC) + timedelta(days=each):%Y%m%d%H%M%SZ}" for each in days)
    (directory / "index").write_text("")
    (directory / "ca.cnf").write_text(
        f"[ca]\ndefault_ca=own\n[own]\ndatabase={directory}/index\nnew_certs_dir={directory}\n"
        "rand_serial=yes\ndefault_md=sha256\npolicy=any\n[any]\ncommonName=optional\n"
        f"[ext]\n{names or 'basicConstraints=CA:FALSE'}\n"
    )
    _openssl("req", "-new", "-nodes", "-newkey", *key, "-subj", "/CN=x" if names else "/",
        "-config", "/dev/null", "-keyout", made.key, "-out", request)  # fmt: skip
    _openssl("ca", "-batch", "-selfsign", "-config", directory / "ca.cnf", "-extensions", "ext",
        "-keyfile", made.key, "-in", request, "-out", made.cert, "-notext",
        "-startdate", begin, "-enddate", end)  # fmt: skip
    return made


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
