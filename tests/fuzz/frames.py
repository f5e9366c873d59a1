"""HTTP/2 and HTTP/1 as nobody should speak it. https://www.rfc-editor.org/rfc/rfc9113"""

from __future__ import annotations

import random

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _CONTINUATION = 0, 1, 3, 4, 9
_END_STREAM, _END_HEADERS = 1, 4
_METHOD = b"/headstart.v1.PrecomputeService/GetStats"


def frame(kind: int, flags: int, stream: int, payload: bytes, length: int | None = None) -> bytes:
    """A frame, which may lie about its length."""
    size = len(payload) if length is None else length
    return size.to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def header(name: bytes, value: bytes) -> bytes:
    """A literal header, for HPACK: not indexed, not compressed."""
    return b"\x00" + _length(name) + _length(value)


def _length(text: bytes) -> bytes:
    if len(text) < 0x7F:
        return bytes([len(text)]) + text
    rest, more = len(text) - 0x7F, bytearray([0x7F])
    while rest >= 0x80:
        more.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes([*more, rest]) + text


def call_headers(*more: bytes) -> bytes:
    """The header block of a call."""
    pairs = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", _METHOD)]
    pairs += [(b":authority", b"x"), (b"content-type", b"application/grpc"), (b"te", b"trailers")]
    return b"".join(header(*pair) for pair in pairs) + b"".join(more)


def http2(dice: random.Random) -> bytes:
    """What a client of the gRPC port may send."""
    return dice.choice(_HTTP2)(dice)


def _noise(dice: random.Random) -> bytes:
    return dice.randbytes(dice.choice((0, 1, 24, 300, 5000)))


def _bad_preface(dice: random.Random) -> bytes:
    return PREFACE[: dice.randint(0, 23)] + dice.randbytes(dice.randint(0, 30))


def _any_frames(dice: random.Random) -> bytes:
    return _OPENING + b"".join(_any_frame(dice) for _ in range(dice.randint(1, 20)))


def _headers_without_end(dice: random.Random) -> bytes:
    flood = b"".join(
        frame(_CONTINUATION, 0, 1, header(b"x-%d" % i, b"y" * dice.choice((0, 10, 1000))))
        for i in range(dice.choice((10, 100, 1000)))
    )
    return _OPENING + frame(_HEADERS, 0, 1, call_headers()) + flood


def _large_headers(dice: random.Random) -> bytes:
    large = header(b"x-large", b"y" * dice.choice((8_000, 16_000)))
    return _OPENING + frame(_HEADERS, _END_HEADERS, 1, call_headers(large))


def _message_of_another_length(dice: random.Random) -> bytes:
    said = dice.choice((0, 5, 2**31, 2**32 - 1)).to_bytes(4, "big")
    message = bytes([dice.choice((0, 1, 2, 255))]) + said + dice.randbytes(3)
    return _OPENING + _open_call() + frame(_DATA, dice.choice((0, _END_STREAM)), 1, message)


def _calls_without_end(dice: random.Random) -> bytes:
    """Many, some of them reset at once."""
    return _OPENING + b"".join(
        frame(_HEADERS, _END_HEADERS, 2 * i + 1, call_headers())
        + dice.choice((b"", frame(_RESET, 0, 2 * i + 1, b"\x00\x00\x00\x08")))
        for i in range(dice.choice((1, 50, 300)))
    )


def _headers_in_no_code(dice: random.Random) -> bytes:
    return _OPENING + frame(_HEADERS, _END_HEADERS, 1, dice.randbytes(dice.randint(1, 200)))


def _any_settings(dice: random.Random) -> bytes:
    settings = b"".join(
        dice.randrange(10).to_bytes(2, "big") + dice.choice((b"\0\0\0\0", b"\xff\xff\xff\xff"))
        for _ in range(dice.randint(1, 50))
    )
    return PREFACE + frame(_SETTINGS, 0, 0, settings) + _open_call()


def _open_call() -> bytes:
    return frame(_HEADERS, _END_HEADERS, 1, call_headers())


def _any_frame(dice: random.Random) -> bytes:
    payload = dice.randbytes(dice.choice((0, 1, 4, 8, 50)))
    length = dice.choice((None, None, None, 0, 2**24 - 1))
    stream = dice.choice((0, 1, 2, 3, 2**31 - 1, 2**31))
    return frame(dice.choice((*range(11), 255)), dice.randrange(256), stream, payload, length)


_OPENING = PREFACE + frame(_SETTINGS, 0, 0, b"")
_HTTP2 = (
    *(_noise, _bad_preface, _any_frames, _headers_without_end, _large_headers, _any_settings),
    *(_message_of_another_length, _calls_without_end, _headers_in_no_code),
)


def http1(dice: random.Random) -> bytes:
    """What a client of the HTTP port may send."""
    kind = dice.randrange(7)
    if kind == 0:
        return dice.randbytes(dice.choice((0, 1, 100, 5000)))
    if kind == 1:
        return PREFACE + dice.randbytes(50)
    method = dice.choice((b"GET", b"HEAD", b"POST", b"\x00", b"G" * 100))
    path = dice.choice((b"/livez", b"/readyz", b"/%00", b"/" + b"a" * 10_000, b"//..//", b"*", b""))
    line = method + b" " + path + dice.choice((b" HTTP/1.1", b" HTTP/9.9", b"", b" HTTP/1.0"))
    if kind == 2:
        return line
    headers = b"".join(
        dice.choice((b"Host: x", b"Content-Length: -1", b"Content-Length: 99999999999999999999"))
        + b"\r\n"
        for _ in range(dice.randint(0, 3))
    )
    if kind == 3:
        headers += b"X: " + b"y" * dice.choice((1000, 100_000)) + b"\r\n"
    if kind == 4:
        headers += b"".join(b"X-%d: y\r\n" % i for i in range(dice.choice((10, 5000))))
    if kind == 5:
        chunk = dice.choice((b"zz\r\n", b"ffffffffffffffff\r\n", b"5\r\nabc", b"-1\r\n"))
        return line + b"\r\n" + headers + b"Transfer-Encoding: chunked\r\n\r\n" + chunk
    ending = dice.choice((b"\r\n\r\n", b"\n\n", b"", b"\r\n"))
    return line + b"\r\n" + headers + ending + dice.randbytes(dice.randint(0, 20))
