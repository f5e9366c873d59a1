"""When a certificate ends. Python's ssl reads that only of certificates that it has verified."""

from __future__ import annotations

import math
import ssl
from datetime import UTC, datetime
from pathlib import Path

_END = "-----END CERTIFICATE-----"
_EXPLICIT_VERSION = 0xA0
_UTC_TIME = 0x17
_LONG = 0x80
_FIELDS_BEFORE = 3
"""In front of a certificate's validity: its serial number, its algorithm and its issuer."""


def expiry(path: Path) -> float:
    """When the first certificate of a PEM file ends, as Unix time; infinite if it cannot be read.

    Metrics want to know it; whether it is a certificate that can be served is others' question.
    """
    try:
        text = path.read_text(encoding="ascii", errors="replace")
        first = text[text.index("-----BEGIN CERTIFICATE") : text.index(_END) + len(_END)]
        return _not_after(ssl.PEM_cert_to_DER_cert(first)).timestamp()
    except (OSError, ValueError, IndexError):
        return math.inf


def _not_after(certificate: bytes) -> datetime:
    """The end of an X.509 certificate's validity (RFC 5280, 4.1)."""
    at, _ = _inside(certificate, 0)
    at, _ = _inside(certificate, at)
    if certificate[at] == _EXPLICIT_VERSION:
        at = _behind(certificate, at)
    for _ in range(_FIELDS_BEFORE):
        at = _behind(certificate, at)
    not_before, _ = _inside(certificate, at)
    at = _behind(certificate, not_before)
    begin, end = _inside(certificate, at)
    text = certificate[begin:end].decode("ascii")
    # The years of the short form are those from 1950 to 2049.
    if certificate[at] == _UTC_TIME:
        text = ("19" if text >= "50" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)


def _inside(data: bytes, at: int) -> tuple[int, int]:
    """Where the contents of the DER element at this place begin and end."""
    size, begin = data[at + 1], at + 2
    if size & _LONG:
        digits = size - _LONG
        size, begin = int.from_bytes(data[begin : begin + digits]), begin + digits
    return begin, begin + size


def _behind(data: bytes, at: int) -> int:
    return _inside(data, at)[1]
