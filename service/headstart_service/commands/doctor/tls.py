"""Whether the connection is private: the certificate's chain, name, age, and the client's own."""

from __future__ import annotations

import os
import pkgutil
import ssl
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from .address import Place
from .report import Check, fail, ok, warn

if TYPE_CHECKING:
    from headstart import Tls

_NAME: Final = "TLS"
_SOON: Final = 14
"""Days before its end from which a certificate is warned of."""
_DAY: Final = 86400
_EXPIRED, _NOT_YET, _WRONG_NAME = 10, 9, {62, 64}
"""OpenSSL's codes of why a certificate is refused."""


def check_tls(place: Place, tls: Tls | None, timeout: float) -> Iterator[Check]:
    """One or two findings. Nothing but a handshake is sent."""
    if tls is None:
        yield _plaintext(place, timeout)
        return
    try:
        context = _context(tls)
    except (OSError, ssl.SSLError) as error:
        names = ", ".join(str(path) for path in (tls.ca, tls.cert, tls.key) if path)
        yield fail(
            _NAME,
            f"cannot use {names}: {_reason(error)}",
            "HEADSTART_CA, HEADSTART_CLIENT_CERT and HEADSTART_CLIENT_KEY name PEM files",
        )
        return
    name = tls.server_name or (place.host if place.port else "localhost")
    try:
        with (
            place.connect(timeout) as plain,
            context.wrap_socket(plain, server_hostname=name) as secured,
        ):
            yield from _established(secured, name)
            # With TLS 1.3 a server refuses a client's certificate after the handshake. gRPC then
            # hangs up without a reason; else it sends its settings at once.
            if not secured.recv(1):
                yield _unwanted("it hangs up", tls)
    except ssl.SSLCertVerificationError as error:
        yield _refused(error, name)
    except TimeoutError:
        pass  # the server has not refused this client
    except ssl.SSLError as error:
        yield _broken(error, tls)
    except OSError as error:
        yield fail(_NAME, f"the handshake was cut: {_reason(error)}", _NO_TLS)


_NO_TLS: Final = "does the server speak TLS? Without, unset HEADSTART_CA"


def speaks_tls(place: Place, timeout: float) -> bool:
    """Return whether any server speaks TLS there."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # nothing is sent
    context.set_alpn_protocols(["h2"])
    try:
        with place.connect(timeout) as plain, context.wrap_socket(plain):
            return True
    except OSError:
        return False


def _plaintext(place: Place, timeout: float) -> Check:
    if speaks_tls(place, timeout):
        return fail(
            _NAME,
            "the server speaks TLS and this client does not",
            "set HEADSTART_CA (or --ca) to the PEM file of its authority, or to `system`",
        )
    if place.local:
        return ok(_NAME, "none, on this machine alone")
    return warn(
        _NAME,
        "none: calls, results and tokens can be read on the network",
        "give the server a certificate (docs/security.md), unless something else encrypts",
    )


def _context(tls: Tls) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["h2"])
    if tls.ca is not None:
        context.load_verify_locations(tls.ca)
    elif own := os.environ.get("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"):
        context.load_verify_locations(own)
    else:
        roots = pkgutil.get_data("grpc", "_cython/_credentials/roots.pem")
        if roots is not None:
            context.load_verify_locations(cadata=roots.decode())
    if tls.cert is not None and tls.key is not None:
        # With a password given here, OpenSSL does not ask for one on the terminal.
        context.load_cert_chain(tls.cert, tls.key, password="")
    return context


def _established(secured: ssl.SSLSocket, name: str) -> Iterator[Check]:
    certificate: Any = secured.getpeercert() or {}
    left = (ssl.cert_time_to_seconds(certificate["notAfter"]) - time.time()) / _DAY
    found = f"{secured.version()}, certificate good for {name}, for {left:.0f} more days"
    if left < _SOON:
        yield warn(_NAME, found, "renew it: the server reads its files again, without a restart")
    else:
        yield ok(_NAME, found)
    if secured.selected_alpn_protocol() != "h2":
        yield fail(
            _NAME,
            "what answers speaks no HTTP/2",
            "is this the gRPC port? A proxy before it must pass HTTP/2 on",
        )


def _refused(error: ssl.SSLCertVerificationError, name: str) -> Check:
    found = f"the server's certificate is refused: {error.verify_message}"
    if error.verify_code in (_EXPIRED, _NOT_YET):
        return fail(_NAME, found, "renew it, or set this machine's clock")
    if error.verify_code in _WRONG_NAME:
        return fail(
            _NAME,
            found,
            f"it is not for {name}: give HEADSTART_SERVER_NAME one of its names, or make it for "
            "this one",
        )
    return fail(
        _NAME,
        found,
        "HEADSTART_CA must hold the authority that signed it, and the server's file the whole "
        "chain",
    )


def _unwanted(reason: str, tls: Tls) -> Check:
    advice = (
        "HEADSTART_CLIENT_CERT must be signed by the server's HEADSTART_TLS_CLIENT_CA"
        if tls.cert
        else "if it asks for client certificates, set HEADSTART_CLIENT_CERT and "
        "HEADSTART_CLIENT_KEY"
    )
    return fail(_NAME, f"the server refuses this client: {reason}", advice)


def _broken(error: ssl.SSLError, tls: Tls) -> Check:
    if "ALERT" in (error.reason or ""):
        return _unwanted(_reason(error), tls)
    return fail(_NAME, f"no TLS: {_reason(error)}", _NO_TLS)


def _reason(error: OSError) -> str:
    reason = getattr(error, "reason", None) or error.strerror or str(error)
    return str(reason).lower().replace("_", " ")
