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
            # Libraries take an empty variable for a value, such as a directory "" or "no colours".
            del os.environ[name]
    _speak_utf8()
    # gRPC reads it once, when it is loaded. Each child here is a new program, which needs none of
    # gRPC's handlers for forks. They log an error while an exporter's thread is in gRPC.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
    # Keep gRPC's own lines, such as one for each failed handshake, out of the JSON log.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    try:
        from .commands.cli import main as run

        code = run()
    except KeyboardInterrupt:  # before the command line has begun
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
        os.environ["PYTHONUTF8"] = "1"  # for child processes
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    given = os.environ.get("PYTHONIOENCODING", "")
    if given and ":" not in given:
        os.environ["PYTHONIOENCODING"] = f"{given}:backslashreplace"  # for child processes


if __name__ == "__main__":
    main()
