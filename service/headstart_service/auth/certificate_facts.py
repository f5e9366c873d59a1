"""Reads what a certificate says of itself. Python's ssl reads only certificates it has verified."""

from __future__ import annotations

import ipaddress
import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

_PEM: Final = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_EXPLICIT_VERSION, _EXTENSIONS = 0xA0, 0xA3
_UTC_TIME, _OBJECT_ID = 0x17, 0x06
_DNS_NAME, _IP_ADDRESS = 0x82, 0x87
_LONG = 0x80
_SUBJECT_ALT_NAME: Final = bytes.fromhex("551d11")
_COMMON_NAME: Final = bytes.fromhex("550403")
_KEYS: Final = {
    "2a864886f70d010101": "RSA",
    "2a864886f70d01010a": "RSA-PSS",
    "2b6570": "Ed25519",
    "2b6571": "Ed448",
    "2a8648ce3d030107": "ECDSA P-256",
    "2b81040022": "ECDSA P-384",
    "2b81040023": "ECDSA P-521",
}
"""Names of keys by the object identifier of their algorithm or curve, in hexadecimal."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What one certificate says of itself."""

    begins: float
    """Start of its validity, as Unix time."""
    ends: float
    """End of its validity, as Unix time."""
    key: str
    """Kind of its key: RSA, Ed25519, ECDSA P-256 and so on."""
    name: str
    """One name that a client may ask for: of DNS, else an address; empty if there is none."""


def facts_of(pem: bytes) -> list[Facts]:
    """Read every certificate of a PEM file, in order. Raises ValueError."""
    try:
        return [
            _facts(ssl.PEM_cert_to_DER_cert(each))
            for each in _PEM.findall(pem.decode("ascii", errors="replace"))
        ]
    except (IndexError, ValueError, StopIteration, RuntimeError) as error:
        raise ValueError("a certificate cannot be read") from error


def without_ended(pem: bytes, now: float) -> bytes:
    """Remove the certificates of a PEM file that have ended. Raises ValueError, as `facts_of`."""
    kept = _PEM.sub(
        lambda block: block[0] if facts_of(block[0].encode())[0].ends > now else "",
        pem.decode("latin-1"),
    )
    return kept.encode("latin-1")


def _facts(certificate: bytes) -> Facts:
    """Walk through an X.509 certificate (RFC 5280, 4.1)."""
    [(_, whole)] = _elements(certificate)
    _, contents = next(_elements(whole))
    fields = list(_elements(contents))
    if fields[0][0] == _EXPLICIT_VERSION:
        del fields[0]
    # Serial number, algorithm of the signature and issuer come before these.
    (_, validity), (_, subject), (_, key) = fields[3:6]
    begins, ends = (_time(*each) for each in _elements(validity))
    extensions = next((value for tag, value in fields[6:] if tag == _EXTENSIONS), b"")
    return Facts(begins, ends, _key(key), _alternative_name(extensions) or _common_name(subject))


def _time(tag: int, value: bytes) -> float:
    text = value.decode("ascii")
    # The years of the short form are those from 1950 to 2049.
    if tag == _UTC_TIME:
        text = ("19" if text >= "50" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()


def _key(info: bytes) -> str:
    _, algorithm = next(_elements(info))
    ids = [value.hex() for tag, value in _elements(algorithm) if tag == _OBJECT_ID]
    # Of elliptic curves, the second identifier names the curve.
    return _KEYS.get(ids[-1], "unknown")


def _alternative_name(extensions: bytes) -> str:
    if not extensions:
        return ""
    _, listed = next(_elements(extensions))
    for _, extension in _elements(listed):
        (_, identifier), *_, (_, value) = _elements(extension)
        if identifier == _SUBJECT_ALT_NAME:
            _, names = next(_elements(value))
            found = list(_elements(names))
            for tag, name in found:
                if tag == _DNS_NAME:
                    return name.decode("ascii").replace("*", "any")
            return next((str(ipaddress.ip_address(v)) for t, v in found if t == _IP_ADDRESS), "")
    return ""


def _common_name(subject: bytes) -> str:
    for _, part in _elements(subject):
        for _, attribute in _elements(part):
            (_, identifier), (_, value) = _elements(attribute)
            if identifier == _COMMON_NAME:
                return value.decode(errors="replace")
    return ""


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The DER elements that follow one another: their tags and contents."""
    at = 0
    while at < len(data):
        tag, size, begin = data[at], data[at + 1], at + 2
        if size & _LONG:
            digits = size - _LONG
            size, begin = int.from_bytes(data[begin : begin + digits]), begin + digits
        at = begin + size
        yield tag, data[begin:at]
