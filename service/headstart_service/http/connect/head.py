"""The head of a call: what it asks for, in which form, and until when."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl

from google.rpc import code_pb2

from .errors import Refused

UNARY_TYPES: Final = {"application/json": "json", "application/proto": "proto"}
STREAM_TYPES: Final = {
    "application/connect+json": "json",
    "application/connect+proto": "proto",
}
_FORM: Final = "application/x-www-form-urlencoded"
"""What curl sends with `-d` alone."""
_TIMEOUT: Final = re.compile(r"[0-9]{1,10}")
_SHOWN: Final = 100
_METADATA: Final = ("traceparent", "tracestate")
_FIELDS: Final = 32
"""Parameters of a query; more are no call."""


@dataclass(frozen=True, slots=True)
class Head:
    """A request's line and headers."""

    verb: str
    headers: Mapping[str, str]
    query: bytes
    client: tuple[str, int]

    @classmethod
    def of_scope(cls, scope: Any) -> Head:
        """Return the head of an ASGI request; of a repeated header, the first."""
        headers: dict[str, str] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1"), value.decode("latin-1"))
        client = scope.get("client") or ("", 0)
        return cls(scope["method"], headers, scope["query_string"], tuple(client))

    @property
    def peer(self) -> str:
        """The connection's other end."""
        return "{}:{}".format(*self.client)

    def metadata(self) -> Iterator[tuple[str, str]]:
        """Yield the headers that carry a trace."""
        for name in _METADATA:
            if name in self.headers:
                yield name, self.headers[name]

    def content_type(self) -> str:
        """Return the media type in lower case; empty without one, or with a foreign charset."""
        media, _, parameters = self.headers.get("content-type", "").partition(";")
        charset = parameters.replace(" ", "").replace('"', "").lower()
        if charset not in ("", "charset=utf-8"):
            return f"{media.strip().lower()}; {charset[:_SHOWN]}"
        return media.strip().lower()

    def timeout(self) -> float | None:
        """Return the caller's timeout in seconds, None without one. Raises Refused."""
        value = self.headers.get("connect-timeout-ms")
        if value is None:
            return None
        if not _TIMEOUT.fullmatch(value):
            raise Refused(
                code_pb2.INVALID_ARGUMENT,
                f"Connect-Timeout-Ms: must be 1 to 10 digits, is {value[:_SHOWN]!r}",
            )
        return int(value) / 1000

    def check_version(self) -> None:
        """Raise Refused for another version of the protocol than 1."""
        version = self.headers.get("connect-protocol-version", "1")
        if version != "1":
            raise Refused(
                code_pb2.INVALID_ARGUMENT,
                f"Connect-Protocol-Version: must be 1, is {version[:_SHOWN]!r}",
            )

    def check_encoding(self, header: str) -> None:
        """Raise Refused if the header announces a compressed body."""
        check_compression(header, self.headers.get(header, "identity"))


def check_compression(name: str, compression: str) -> None:
    """Raise Refused for any compression."""
    if compression.strip().lower() not in ("", "identity"):
        raise Refused(
            code_pb2.UNIMPLEMENTED,
            f"{name}: must be identity or absent, is {compression[:_SHOWN]!r}: "
            "this server takes no compressed messages",
        )


def codec_of(head: Head, *, streams: bool) -> str:
    """Return the name of the codec that a POST's content type asks for. Raises Refused.

    A form, or no type, counts as JSON: `curl -d` sends that. Browsers send a form from another
    site without asking first, but always with an Origin; with that header a form is refused.
    """
    media = head.content_type()
    known = STREAM_TYPES if streams else UNARY_TYPES
    if not streams and media in ("", _FORM) and "origin" not in head.headers:
        return "json"
    if media not in known:
        raise _unsupported(media, known)
    return known[media]


def _unsupported(media: str, known: Mapping[str, str]) -> Refused:
    accepted = ", ".join(known)
    return Refused(
        code_pb2.UNIMPLEMENTED,
        f"Content-Type: must be one of {accepted}, is {media[:_SHOWN] or 'absent'!r}",
        http_status=415,
        headers={"accept-post": accepted},
    )


def check_verb(head: Head, allowed: Sequence[str]) -> None:
    """Raise Refused for a method of HTTP that the call does not take."""
    if head.verb not in allowed:
        raise Refused(
            code_pb2.UNIMPLEMENTED,
            f"must be sent by {' or '.join(allowed)}, is {head.verb[:_SHOWN]}",
            http_status=405,
            headers={"allow": ", ".join(allowed)},
        )


def parsed_query(query: bytes) -> dict[str, bytes]:
    """Return the parameters of a GET. Raises Refused."""
    try:
        # As Latin-1, each byte is one character: the message may be in UTF-8 or be protobuf.
        pairs = parse_qsl(
            query.decode("latin-1"),
            keep_blank_values=True,
            strict_parsing=bool(query),
            encoding="latin-1",
            max_num_fields=_FIELDS,
        )
    except ValueError as error:
        raise Refused(
            code_pb2.INVALID_ARGUMENT,
            "query: must be parameters such as ?connect=v1&encoding=json&message=%7B%7D",
        ) from error
    found: dict[str, bytes] = {}
    for name, value in pairs:
        if name in found:
            raise Refused(code_pb2.INVALID_ARGUMENT, f"{name[:_SHOWN]}: must be given once")
        found[name] = value.encode("latin-1")
    return found
