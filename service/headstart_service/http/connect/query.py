"""Reads by GET: the request is in the query, so that links and caches can hold it."""

from __future__ import annotations

import base64
import binascii

from google.rpc import code_pb2

from .errors import Refused
from .head import Head, check_compression, parsed_query

_CODECS = ("json", "proto")


def message_of(head: Head) -> tuple[str, bytes]:
    """Return the codec's name and the request of a GET. Raises Refused."""
    query = parsed_query(head.query)
    version = query.get("connect", b"v1").decode(errors="replace")
    if version != "v1":
        raise Refused(code_pb2.INVALID_ARGUMENT, f"connect: must be v1, is {version[:100]!r}")
    check_compression("compression", query.get("compression", b"").decode(errors="replace"))
    codec = query.get("encoding", b"json").decode(errors="replace")
    if codec not in _CODECS:
        raise Refused(
            code_pb2.UNIMPLEMENTED,
            f"encoding: must be one of {', '.join(_CODECS)}, is {codec[:100]!r}",
            http_status=415,
        )
    message = query.get("message", b"")
    encoded = query.get("base64", b"0")
    if encoded not in (b"0", b"1"):
        raise Refused(code_pb2.INVALID_ARGUMENT, "base64: must be 1 or absent")
    if encoded == b"1":
        message = _decoded(message)
    return codec, message or (b"{}" if codec == "json" else b"")


def _decoded(text: bytes) -> bytes:
    """Return what base 64 for URLs holds, padded or not. Raises Refused."""
    bare = text.rstrip(b"=")
    try:
        # Without `validate`, characters that are not of the alphabet would be left out.
        padded = bare + b"=" * (-len(bare) % 4)
        return base64.b64decode(padded, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refused(
            code_pb2.INVALID_ARGUMENT, "message: must be base 64 with the alphabet for URLs"
        ) from error
