"""Identifies the server and this client: TLS files and tokens, given or from variables.

Files are read when a connection opens, not before. A facade that promises never to raise must not
do so because a certificate is missing at the time it is made. They are read again when they change.
"""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc

from headstart._errors import ServiceUnavailable
from headstart._messages import arguments
from headstart._transport.file_changes import FileChanges, FileStates

_SYSTEM: Final = "system"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """TLS files in PEM: the trusted authorities, and this client's certificate.

    Tls(ca="ca.pem")                                  the server must be certified by it
    Tls(ca="ca.pem", cert="me.pem", key="me.key")     and knows this client, too (mTLS)
    Tls()                                             the authorities that gRPC comes with
    """

    ca: str | os.PathLike[str] | None = None
    cert: str | os.PathLike[str] | None = None
    """The client's certificate, with the chain behind it; it needs `key`."""
    key: str | os.PathLike[str] | None = None
    server_name: str | None = None
    """The name that the server's certificate must have, when it is not the address's host."""

    def __post_init__(self) -> None:
        """Refuse half a pair.

        Raises:
            ValueError: A certificate without its key, or the other way round.
            TypeError: A value of a wrong type.
        """
        for name in ("ca", "cert", "key"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str | os.PathLike):
                arguments.wrong_type(name, value, "a str, a path or None")
        arguments.optional_text("server_name", self.server_name)
        if (self.cert is None) != (self.key is None):
            message = "a client certificate and its key go together: give both or neither"
            raise ValueError(message)

    def files(self) -> tuple[str | os.PathLike[str], ...]:
        """Return the paths of the files."""
        return tuple(path for path in (self.ca, self.cert, self.key) if path is not None)

    def check(self) -> None:
        """Check that the files hold certificates, and that the key is the certificate's.

        gRPC would find out with the first connection only.

        Raises:
            ServiceUnavailable: They do not, or cannot be read.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            if self.ca is not None:
                context.load_verify_locations(self.ca)
            if self.cert is not None:
                # gRPC knows no passwords; without one given here, ssl would ask the terminal.
                context.load_cert_chain(self.cert, self.key, password="")
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            paths = ", ".join(os.fspath(path) for path in self.files())
            message = f"cannot use the TLS files {paths}: {error}"
            raise ServiceUnavailable(message) from error

    def credentials(self) -> grpc.ChannelCredentials:
        """Read the files, which gRPC itself must not check: it ends the process at an empty key.

        Raises:
            ServiceUnavailable: One cannot be read or used, so no server can be reached.
        """
        ca, key, cert = _read(self.ca), _read(self.key), _read(self.cert)
        self.check()
        return grpc.ssl_channel_credentials(
            root_certificates=ca, private_key=key, certificate_chain=cert
        )


def tls_from(variables: Mapping[str, str]) -> Tls | None:
    """Return the TLS of HEADSTART_CA, _CLIENT_CERT, _CLIENT_KEY and _SERVER_NAME; None: no TLS.

    Raises:
        ValueError: A client certificate without its key, or the other way round.
    """
    ca, cert, key, name = (
        variables.get(f"HEADSTART_{each}") or None
        for each in ("CA", "CLIENT_CERT", "CLIENT_KEY", "SERVER_NAME")
    )
    if ca is None and cert is None and key is None:
        return None
    return Tls(ca=None if ca == _SYSTEM else ca, cert=cert, key=key, server_name=name)


def token_from_environment() -> str | Callable[[], str] | None:
    """Return HEADSTART_TOKEN, else what reads HEADSTART_TOKEN_FILE, else None.

    Raises:
        ValueError: The token has characters that no header carries.
    """
    if token := checked_token(os.environ.get("HEADSTART_TOKEN", ""), "HEADSTART_TOKEN"):
        return token
    if path := os.environ.get("HEADSTART_TOKEN_FILE"):
        return TokenFile(Path(path))
    return None


def checked_token(token: str, where: str) -> str:
    """Return the token without spaces around it, if a header can carry it.

    Raises:
        ValueError: It has other characters than printable ASCII; the message names `where`, and
            never the token.
    """
    token = token.strip()
    if not (token.isascii() and token.isprintable()):
        message = f"the token of {where} must be one line of printable ASCII characters"
        raise ValueError(message)
    return token


class TokenFile:
    """Returns the token of a file, and reads the file again within a second of a change."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Keep the path; nothing is read yet. `clock` returns seconds."""
        self._path = path
        self._changes = FileChanges(path, clock=clock)
        self._read_at: FileStates = ()
        self._token = ""

    def __call__(self) -> str:
        """Return the token.

        Raises:
            ServiceUnavailable: The file cannot be read, or holds no token.
        """
        states = self._changes.states()
        if states != self._read_at or None in states:
            self._token = self._read()
            self._read_at = states
        return self._token

    def _read(self) -> str:
        try:
            text = self._path.read_text(encoding="utf-8")
        except OSError as exc:
            raise ServiceUnavailable(_unreadable(self._path, exc)) from exc
        except UnicodeDecodeError as exc:
            message = f"the token file {self._path} is no UTF-8 text: {exc.reason}"
            raise ServiceUnavailable(message) from None
        try:
            token = checked_token(text, f"the file {self._path}")
        except ValueError as exc:
            raise ServiceUnavailable(str(exc)) from None
        if not token:
            message = f"the token file {self._path} is empty"
            raise ServiceUnavailable(message)
        return token


def _read(path: str | os.PathLike[str] | None) -> bytes | None:
    if path is None:
        return None
    try:
        content = Path(path).read_bytes()
    except OSError as exc:
        raise ServiceUnavailable(_unreadable(path, exc)) from exc
    if not content:
        raise ServiceUnavailable(f"{os.fspath(path)} is empty")
    return content


def _unreadable(path: str | os.PathLike[str], error: OSError) -> str:
    return f"cannot read {os.fspath(path)}: {error.strerror}"
