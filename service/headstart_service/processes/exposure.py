"""What of the settings decides who may connect: refuses what would leave a server open."""

from __future__ import annotations

import logging

from ..auth.server_certificate import ServerCertificate, TlsFiles
from ..auth.token_file import TokenFile
from ..base.listening import is_loopback
from ..config.settings import Settings
from ..domain.errors import StartupError

log = logging.getLogger(__name__)


def certificate(settings: Settings) -> ServerCertificate | None:
    """The certificate to listen with; None without TLS. Raises StartupError."""
    files = _tls_files(settings)
    return None if files is None else ServerCertificate(files)


def token_file(settings: Settings) -> TokenFile | None:
    """Return the accepted tokens; None when no caller needs one. Raises StartupError."""
    return None if settings.tokens is None else TokenFile(settings.tokens)


def refuse_exposure(settings: Settings) -> None:
    """Raise StartupError if others could read what goes over the wire; warn if that is meant."""
    check_exposure(settings)
    risk = exposure(settings)
    if risk is not None:
        log.warning("HEADSTART_INSECURE: %s", risk)


def check_exposure(settings: Settings) -> None:
    """Raise StartupError if others could read what goes over the wire, unless that is meant."""
    risk = exposure(settings)
    if risk is not None and not settings.insecure:
        raise StartupError(
            f"HEADSTART_TLS_CERT: {risk}; set HEADSTART_TLS_CERT and HEADSTART_TLS_KEY, listen on "
            "127.0.0.1, or, where something else encrypts, say HEADSTART_INSECURE=true"
        )


def check_origins(settings: Settings) -> None:
    """Raise StartupError if pages of every site could call without a token."""
    if "*" in settings.cors_origins and settings.tokens is None:
        raise StartupError(
            "HEADSTART_CORS_ORIGINS: with * any web page may call through its visitors' browsers: "
            "name the origins, or set HEADSTART_TOKENS"
        )


def check_http_tls(settings: Settings) -> None:
    """Raise StartupError if the HTTP port has no certificate for its TLS."""
    if settings.http_tls and settings.tls_cert is None:
        raise StartupError(
            "HEADSTART_HTTP_TLS: needs a certificate: set HEADSTART_TLS_CERT and HEADSTART_TLS_KEY"
        )


def http_is_open(settings: Settings, *, tls: bool) -> bool:
    """Whether what an HTTP port with or without TLS serves may go to other machines."""
    return tls or settings.insecure or is_loopback(settings.host)


def exposure(settings: Settings) -> str | None:
    """What others could read; None when they cannot. Raises StartupError for half of TLS."""
    if _tls_files(settings) is not None or is_loopback(settings.host):
        return None
    exposed = "every call and result"
    if settings.tokens is not None:
        exposed += ", and the tokens of HEADSTART_TOKENS,"
    return f"without TLS {exposed} can be read on the network of HEADSTART_HOST={settings.host}"


def _tls_files(settings: Settings) -> TlsFiles | None:
    cert, key, client_ca = settings.tls_cert, settings.tls_key, settings.tls_client_ca
    if cert is not None and key is not None:
        return TlsFiles(cert=cert, key=key, client_ca=client_ca)
    given = {"HEADSTART_TLS_CERT": cert, "HEADSTART_TLS_KEY": key}
    if cert is None and key is None and client_ca is None:
        return None
    missing = " and ".join(name for name, path in given.items() if path is None)
    raise StartupError(
        f"{missing}: must be set too: TLS needs HEADSTART_TLS_CERT and HEADSTART_TLS_KEY"
    )
