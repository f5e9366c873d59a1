"""The TLS options of every command that calls a server; each is an environment variable, too.

A token has no option, because everybody on a machine sees arguments: HEADSTART_TOKEN has it, or
the file HEADSTART_TOKEN_FILE.
"""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from headstart import Tls

_OPTIONS: Final = (
    ("HEADSTART_CA", "PEM file of the trusted authorities, or `system`; turns TLS on"),
    ("HEADSTART_CLIENT_CERT", "PEM file of this client's certificate, for mTLS"),
    ("HEADSTART_CLIENT_KEY", "PEM file of its key"),
    ("HEADSTART_SERVER_NAME", "the server certificate's name, if it is not the address's"),
)


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    group = parser.add_argument_group("TLS", "each is also an environment variable")
    for variable, text in _OPTIONS:
        flag = variable.removeprefix("HEADSTART_").lower().replace("_", "-")
        group.add_argument(f"--{flag}", dest=variable, metavar="VALUE", help=f"{text} [{variable}]")


def tls_of(options: argparse.Namespace, **defaults: str) -> Tls | None:
    """What the options say, else the environment, else `defaults`; None means plaintext.

    Raises ValueError for a certificate without its key.
    """
    from headstart._for_service import tls_from

    given = {name: value for name, _ in _OPTIONS if (value := getattr(options, name))}
    set_ones = {name: value for name, value in os.environ.items() if value}
    return tls_from({**defaults, **set_ones, **given})


def check_files(tls: Tls | None) -> None:
    """Read the client's files before a call: gRPC reports a wrong one as a server that is away.

    Raises ServiceUnavailable and ValueError that name the file.
    """
    from headstart._for_service import token_from_environment

    if tls is not None:
        tls.check()
    token = token_from_environment()
    if callable(token):
        token()
