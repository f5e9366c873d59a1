"""`headstart` and `python -m headstart_service`."""

from __future__ import annotations

import io
import os
import sys
from typing import Final

_OURS: Final = (
    *("HEADSTART_", "ANTHROPIC_", "OTEL_", "HF_", "SENTENCE_TRANSFORMERS_", "TOKENIZERS_"),
    *("GRPC_", "RAY_", "XDG_", "OMP_", "MKL_", "OPENBLAS_", "NO_COLOR", "KUBERNETES_SERVICE_HOST"),
)
"""What the variables begin with that this program or its libraries read."""


def main() -> None:
    """Run the command line and exit with its code."""
    for name in [name for name, value in os.environ.items() if not value]:
        if name.startswith(_OURS):
            # Libraries take an empty variable for a value: a directory "", or colours forbidden.
            del os.environ[name]
    _speak_utf8()
    # Read once, when gRPC is loaded. Each child here is a new program, which needs none of gRPC's
    # handlers for forks; they would log that they cannot run while an exporter's thread is in gRPC.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
    # gRPC's own notes, as of each failed handshake, are no lines of the log, least of all JSON.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    try:
        from .commands.cli import main as run

        code = run()
    except KeyboardInterrupt:  # before there was anything to interrupt
        code = 130
    sys.exit(code)


def _speak_utf8() -> None:
    """Take arguments, variables and files for UTF-8 in any locale, and print what a stream can.

    Python decodes the former before it runs this; so where the locale is another one, it starts
    again in its UTF-8 mode, in this process.
    """
    if sys.getfilesystemencoding() != "utf-8" and not any(
        each.endswith("utf8=0") for each in sys.orig_argv
    ):
        os.environ["PYTHONUTF8"] = "1"  # for children
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    given = os.environ.get("PYTHONIOENCODING", "")
    if given and ":" not in given:
        os.environ["PYTHONIOENCODING"] = f"{given}:backslashreplace"  # of children


if __name__ == "__main__":
    main()
