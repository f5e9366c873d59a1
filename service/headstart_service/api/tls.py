"""The server's certificate: read at the start and again when its files change.

gRPC asks for it with every new connection, so a renewed certificate needs no restart, and
connections that are open go on with the old one.
"""

from __future__ import annotations

import logging
import ssl
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from ..errors import StartupError
from .certificate_dates import expiry
from .watched import Fingerprint, fingerprint

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files of a server. With `client_ca` only clients that it has certified may connect."""

    cert: Path
    key: Path
    client_ca: Path | None = None

    def paths(self) -> tuple[Path, ...]:
        """All that there are."""
        given = (self.cert, self.key, self.client_ca)
        return tuple(path for path in given if path is not None)


class ServerCertificate:
    """What the files held when they last fitted each other."""

    def __init__(self, files: TlsFiles) -> None:
        """Read them. Raises StartupError."""
        self._files = files
        self._lock = threading.Lock()
        self.refusals = 0
        """How often what was new did not fit."""
        self._seen = fingerprint(files.paths())
        self._first = _read(files)
        self.expires = expiry(files.cert)
        """When the certificate that is served ends, as Unix time; infinite if that is not told."""

    def credentials(self) -> grpc.ServerCredentials:
        """What a port listens with."""
        # Its stubs do not know that None means no news.
        changed: Any = self.changed
        made: grpc.ServerCredentials = grpc.dynamic_ssl_server_credentials(
            self._first, changed, require_client_authentication=bool(self._files.client_ca)
        )
        return made

    def changed(self) -> grpc.ServerCertificateConfiguration | None:
        """The new certificate, or None to go on with the last; called on gRPC's own threads."""
        with self._lock:
            seen = fingerprint(self._files.paths())
            if seen == self._seen:
                return None
            # Told once: while its files do not fit, each is written anew before they do.
            self._seen = seen
            try:
                read = _read(self._files)
            except StartupError as error:
                self.refusals += 1
                log.error("the certificate that was read before stays in force: %s", error)  # noqa: TRY400  # no news in the trace
                return None
            if self._moved(seen):
                return None
            self.expires = expiry(self._files.cert)
            log.info("new certificate read from %s", self._files.cert)
            return read

    def _moved(self, seen: Fingerprint) -> bool:
        """Whether a file changed while all were read: the next connection reads them again."""
        if fingerprint(self._files.paths()) == seen:
            return False
        self._seen = ()
        return True


def _read(files: TlsFiles) -> grpc.ServerCertificateConfiguration:
    """What gRPC takes. It says nothing of what is wrong with it, so that is found out before."""
    key, cert = _bytes("HEADSTART_TLS_KEY", files.key), _bytes("HEADSTART_TLS_CERT", files.cert)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # With a password at hand nobody is asked for one on the terminal.
        context.load_cert_chain(files.cert, files.key, password="")
    except (ssl.SSLError, OSError, ValueError) as error:
        raise StartupError(
            f"HEADSTART_TLS_CERT, HEADSTART_TLS_KEY: {files.cert} and {files.key} are no "
            f"certificate and its unencrypted key in PEM: {_reason(error)}"
        ) from None
    roots = None
    if files.client_ca is not None:
        roots = _bytes("HEADSTART_TLS_CLIENT_CA", files.client_ca)
        try:
            context.load_verify_locations(files.client_ca)
        except (ssl.SSLError, OSError) as error:
            raise StartupError(
                f"HEADSTART_TLS_CLIENT_CA: {files.client_ca} holds no certificate in PEM: "
                f"{_reason(error)}"
            ) from None
    made: grpc.ServerCertificateConfiguration = grpc.ssl_server_certificate_configuration(
        [(key, cert)], root_certificates=roots
    )
    return made


def _bytes(setting: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StartupError(f"{setting}: cannot read {path}: {error.strerror}") from None


def _reason(error: Exception) -> str:
    return getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
