"""When a client changes to another channel, and when it keeps the one that it has."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from headstart import Tls
from headstart._transport.channels import Channels
from headstart._transport.endpoint import endpoint
from headstart._transport.file_changes import PAUSE
from headstart._transport.loopback import is_loopback
from tests.support.certificates import authority, signed
from tests.support.virtual_time import Clock


class Failed(grpc.RpcError):
    """A call that ended with this code."""

    def __init__(self, code: grpc.StatusCode) -> None:
        super().__init__(code.name)
        self._code = code

    def code(self) -> grpc.StatusCode:
        return self._code


LATE = Failed(grpc.StatusCode.DEADLINE_EXCEEDED)


class Made:
    """Channels to nobody, whose calls end as a test wants them to."""

    def __init__(self, **settings: Any) -> None:
        self.where = endpoint("localhost:1", **settings)
        self.closed: list[grpc.Channel] = []
        self.clock = Clock()
        self.channels = Channels(
            self.where, self.where.open_blocking, self.closed.append, self.clock
        )

    def call(self, error: BaseException | None = None, *, took: float = 0.01, **how: Any) -> Any:
        """Make a call; gives its channel."""
        self.clock.now += 0.01
        try:
            with self.channels.use(**how) as used:
                self.clock.now += took
                if error is not None:
                    raise error
        except (grpc.RpcError, asyncio.CancelledError):
            pass
        return used.channel


def test_a_call_without_an_answer_replaces_a_channel_that_has_answered_before() -> None:
    made = Made()
    first = made.call()
    assert made.call(LATE) is first
    second = made.call()
    assert second is not first
    assert made.closed == [first]
    assert made.channels.close() == [second]


@pytest.mark.parametrize(
    "kept",
    [
        pytest.param(lambda made: made.call(LATE), id="a new one would not be better"),
        pytest.param(
            lambda made: (made.call(), made.call(Failed(grpc.StatusCode.UNAVAILABLE))), id="gone"
        ),
        pytest.param(
            lambda made: (made.call(), made.call(Failed(grpc.StatusCode.NOT_FOUND), took=9)),
            id="an error is an answer",
        ),
        pytest.param(
            lambda made: (made.call(), made.call(asyncio.CancelledError(), took=0.9)), id="left"
        ),
        pytest.param(
            lambda made: (made.call(), made.call(asyncio.CancelledError(), took=9, quiet=60)),
            id="a wait is silent",
        ),
    ],
)
def test_a_channel_is_kept(kept: Callable[[Made], object]) -> None:
    made = Made()
    first = made.channels.current().channel
    kept(made)
    assert made.call() is first
    assert made.closed == []


def test_calls_that_are_left_one_after_the_other_replace_it_too() -> None:
    made = Made()
    first = made.call()
    used = [made.call(asyncio.CancelledError(), took=0.4) for _ in range(3)]
    assert used == [first] * 3
    assert made.call() is not first


def test_an_answer_since_the_call_began_shows_that_the_connection_lives() -> None:
    made = Made()
    first = made.call()
    with pytest.raises(grpc.RpcError), made.channels.use():
        made.channels.current().note_answer()
        raise LATE
    assert made.call() is first


def test_a_replaced_channel_is_closed_when_its_last_call_has_ended() -> None:
    made = Made()
    first = made.call()
    with made.channels.use():
        made.call(LATE)
        assert made.channels.current().channel is not first
        assert made.closed == []
    assert made.closed == [first]


def test_changed_tls_files_open_another_channel_once_they_fit(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = authority(tmp_path, "root")
    mine, renewed = signed(root, tmp_path, "mine"), signed(root, tmp_path, "renewed")
    made = Made(tls=Tls(ca=root.cert, cert=mine.cert, key=mine.key))
    first = made.call()
    mine.cert.write_bytes(renewed.cert.read_bytes())
    assert made.call() is first
    assert caplog.text == "", "files are read once a second"
    made.clock.now += PAUSE
    assert made.call() is first, "the key is not that of the certificate yet"
    assert made.call() is first
    assert caplog.text.count("keeps its TLS files: cannot use the TLS files") == 1
    mine.key.write_bytes(renewed.key.read_bytes())
    made.clock.now += PAUSE
    second = made.call()
    assert second is not first
    root.cert.unlink()
    made.clock.now += PAUSE
    assert made.call() is second
    assert "BEGIN" not in caplog.text
    made.channels.close()


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("localhost:50051", True),
        ("LOCALHOST", True),
        ("api.localhost:1", True),
        ("127.0.0.1:50051", True),
        ("127.8.9.1:1", True),
        ("0.0.0.0:1", True),
        ("[::1]:50051", True),
        ("::1", True),
        ("[::]:1", True),
        ("[::ffff:127.0.0.1]:1", True),
        ("dns:///localhost:50051", True),
        ("dns://8.8.8.8/localhost:50051", True),
        ("dns:localhost:50051", True),
        ("ipv4:127.0.0.1:1,127.0.0.1:2", True),
        ("ipv6:[::1]:1", True),
        ("ipv4:127.0.0.1:1,10.0.0.1:2", False),
        ("headstart:50051", False),
        ("dns:///headstart.default.svc:50051", False),
        ("localhost.example.com:1", False),
        ("10.0.0.1:50051", False),
        ("[2001:db8::1]:50051", False),
        ("unix:/run/headstart.sock", False),
    ],
)
def test_loopback_targets_use_no_proxy(target: str, *, expected: bool) -> None:
    assert is_loopback(target) is expected
    options = dict(endpoint(target).channel_options())
    assert options.get("grpc.enable_http_proxy") == (0 if expected else None)
    forced = endpoint(target, options=[("grpc.enable_http_proxy", 1)])
    assert dict(forced.channel_options())["grpc.enable_http_proxy"] == 1
