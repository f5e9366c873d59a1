"""The server's certificate: read at the start and again when its files change.

A certificate is used only after gRPC itself has served a connection with it, so one that no client
can use never comes into force. A renewed certificate needs no restart: gRPC asks for it with every
new connection, and connections that are open go on with the old one.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import grpc

from ..base.file_changes import fingerprint
from ..domain.errors import StartupError
from .certificate_facts import Facts, facts_of, without_ended

log = logging.getLogger(__name__)

ALLOWED_KEYS: Final = "an RSA key, or an ECDSA key on P-256 or P-384"
"""The keys that gRPC clients accept."""
_RENEW_AUTHORITY: Final = (
    "it is the second one there, of the authority that signed the server's: put in the present one"
)
_LOOK_EVERY: Final = 1.0
_HANDSHAKE: Final = 20.0
"""Seconds for a handshake with this machine itself: it takes milliseconds, but under load more."""


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
    """What the files held when gRPC could last serve it."""

    def __init__(self, files: TlsFiles, *, try_again: float = 60.0) -> None:
        """Read and try them, which blocks for some ten milliseconds. Raises StartupError.

        Refused files are tried again after `try_again` seconds: they may become valid meanwhile.
        """
        self._files = files
        self._pause = try_again
        self._lock = threading.Lock()
        self.refusals = 0
        """How often new files could not be served."""
        self._seen = fingerprint(files.paths())
        self._refused = False
        self._try_again = 0.0
        self._first, self.expires = _tried(files)
        self._context = _context(files)
        """`expires` is when the served certificate ends, as Unix time."""
        self._fresh: grpc.ServerCertificateConfiguration | None = None

    def credentials(self) -> grpc.ServerCredentials:
        """What a port listens with."""
        # The stubs of grpc do not know that None means "unchanged".
        renewed: Any = self._renewed
        made: grpc.ServerCredentials = grpc.dynamic_ssl_server_credentials(
            self._first, renewed, require_client_authentication=bool(self._files.client_ca)
        )
        return made

    def context(self) -> ssl.SSLContext:
        """What a new connection of an HTTP port is served with."""
        return self._context

    def _renewed(self) -> grpc.ServerCertificateConfiguration | None:
        """Return a new certificate once, else None; called on gRPC's own threads."""
        with self._lock:
            fresh, self._fresh = self._fresh, None
        return fresh

    async def watch(self) -> None:
        """Look for changes every second, for ever, on a thread."""
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            await asyncio.to_thread(self.look)

    def look(self) -> None:
        """Read the files again if they have changed; wrong ones leave the old certificate."""
        seen = fingerprint(self._files.paths())
        now = time.monotonic()
        if seen == self._seen and (not self._refused or now < self._try_again):
            return
        changed, self._seen = seen != self._seen, seen
        try:
            read, expires = _tried(self._files)
            context = _context(self._files)
        except StartupError as error:
            self._refused, self._try_again = True, now + self._pause
            if changed:
                self.refusals += 1
                log.error("the certificate that was read before stays in force: %s", error)  # noqa: TRY400  # no news in the trace
            return
        if fingerprint(self._files.paths()) != seen:
            self._seen = ()  # A file changed during the reads: the next check reads all again.
            return
        self._refused = False
        self._context = context
        with self._lock:
            self._fresh = read
        self.expires = expires
        log.info("new certificate read from %s", self._files.cert)


def _tried(files: TlsFiles) -> tuple[grpc.ServerCertificateConfiguration, float]:
    """Read the files and serve a connection with them; return gRPC's form and the end of validity.

    gRPC reports no reason for what it refuses, so faults that have a name are found before. Raises
    StartupError.
    """
    key, cert = _bytes("HEADSTART_TLS_KEY", files.key), _bytes("HEADSTART_TLS_CERT", files.cert)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # With a password given here, OpenSSL does not ask for one on the terminal.
        context.load_cert_chain(files.cert, files.key, password="")
        own, *authorities = facts_of(cert)
    except (ssl.SSLError, OSError, ValueError, IndexError) as error:
        raise StartupError(
            f"HEADSTART_TLS_CERT, HEADSTART_TLS_KEY: {files.cert} and {files.key} are no "
            f"certificate and its unencrypted key in PEM: {_reason(error)}"
        ) from None
    _check_dates("HEADSTART_TLS_CERT", files.cert, [own], "renew it")
    if authorities:
        _check_dates("HEADSTART_TLS_CERT", files.cert, authorities[:1], _RENEW_AUTHORITY)
    roots = None
    if files.client_ca is not None:
        roots = _client_authorities(context, files.client_ca)
    # Of a longer chain, clients leave out what has ended if they trust what stands before it.
    _serve_once(files, (key, without_ended(cert, time.time())), roots, own)
    made: grpc.ServerCertificateConfiguration = grpc.ssl_server_certificate_configuration(
        [(key, cert)], root_certificates=roots
    )
    return made, own.ends


def _context(files: TlsFiles) -> ssl.SSLContext:
    """Return Python's form of files that have been tried. Raises StartupError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(files.cert, files.key, password="")
        if files.client_ca is not None:
            context.load_verify_locations(files.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (ssl.SSLError, OSError) as error:  # they have changed in this moment
        raise StartupError(f"HEADSTART_TLS_CERT: {files.cert}: {_reason(error)}") from None
    return context


def _client_authorities(context: ssl.SSLContext, path: Path) -> bytes:
    """Read the authorities whose clients may connect. Raises StartupError."""
    roots = _bytes("HEADSTART_TLS_CLIENT_CA", path)
    try:
        context.load_verify_locations(path)
        authorities = facts_of(roots)
        if not authorities:
            raise ValueError("no block BEGIN CERTIFICATE")
    except (ssl.SSLError, OSError, ValueError) as error:
        raise StartupError(
            f"HEADSTART_TLS_CLIENT_CA: {path} holds no certificate in PEM: {_reason(error)}"
        ) from None
    _check_dates(
        "HEADSTART_TLS_CLIENT_CA", path, authorities, "no client could connect: renew its authority"
    )
    return roots


def _check_dates(setting: str, path: Path, found: Sequence[Facts], cure: str) -> None:
    """Raise StartupError unless one of these certificates is valid now."""
    now = time.time()
    if any(each.begins <= now < each.ends for each in found):
        return
    latest = max(found, key=lambda each: each.ends)
    fault = (
        f"is not valid before {_spoken(latest.begins)}"
        if now < latest.begins
        else f"ended on {_spoken(latest.ends)}"
    )
    raise StartupError(
        f"{setting}: the certificate of {path} {fault}, and it is {_spoken(now)} now: {cure}, or "
        "set this machine's clock"
    )


def _spoken(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M} UTC"


def _serve_once(
    files: TlsFiles, pair: tuple[bytes, bytes], roots: bytes | None, own: Facts
) -> None:
    """Let a gRPC client connect to a gRPC server with this pair. Raises StartupError."""
    options = (
        ("grpc.ssl_target_name_override", own.name),
        ("grpc.enable_http_proxy", 0),
        ("grpc.enable_retries", 0),
    )
    with ThreadPoolExecutor(1, "certificate") as threads:
        server = grpc.server(threads)
        try:
            # Clients' certificates cannot be tried: this process has none. gRPC reads the roots.
            port = server.add_secure_port(
                "127.0.0.1:0", grpc.ssl_server_credentials([pair], root_certificates=roots)
            )
            server.start()
            trusting = grpc.ssl_channel_credentials(pair[1])
            with grpc.secure_channel(f"127.0.0.1:{port}", trusting, options) as channel:
                call: Any = channel.unary_unary("/headstart/Handshake")
                call(b"", timeout=_HANDSHAKE)
        except RuntimeError as error:
            raise StartupError(_unserved(files, own, "its server refuses them")) from error
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()
            if code is not grpc.StatusCode.UNIMPLEMENTED:  # the answer to a call that came through
                raise StartupError(_unserved(files, own, "a client's handshake fails")) from error
        finally:
            server.stop(None).wait()


def _unserved(files: TlsFiles, own: Facts, how: str) -> str:
    given = ", ".join(map(str, files.paths()))
    name = f"for the name {own.name}" if own.name else "without a name (subjectAltName)"
    return (
        f"HEADSTART_TLS_CERT: gRPC cannot serve {given}, {how}: the certificate has a key of kind "
        f"{own.key}, {name}; allowed are {ALLOWED_KEYS}, for servers, with a DNS name or an address"
    )


def _bytes(setting: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StartupError(f"{setting}: cannot read {path}: {error.strerror}") from None


def _reason(error: Exception) -> str:
    return getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
