"""Opens gRPC channels to the service: the address, the security and the habits of a connection."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import grpc
import grpc.aio

from headstart._messages import arguments
from headstart._transport.addresses import DEFAULT_PORT, target_of
from headstart._transport.loopback import is_loopback
from headstart._transport.security import (
    Tls,
    checked_token,
    tls_from,
    token_from_environment,
)
from headstart.v1 import precompute_pb2 as pb

ChannelOption = tuple[str, str | int]
Metadata = tuple[tuple[str, str | bytes], ...]

# gRPC accepts no more than five attempts in a retry policy.
MOST_ATTEMPTS: Final = 5

# WatchResults is left out: its retry would not resume a stream that has begun, and PrecomputeClient
# resumes it by itself.
_SERVICE: Final = pb.DESCRIPTOR.services_by_name["PrecomputeService"]
_RETRIED_METHODS: Final = tuple(m.name for m in _SERVICE.methods if not m.server_streaming)

_COMMON_OPTIONS: Final[tuple[ChannelOption, ...]] = (
    # A result is 18 kB, but clue and sample counts are the caller's choice.
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    # Balancers and NATs drop flows that were idle for 240 s (the shortest of the large clouds') or
    # longer, without a word. Pings keep a flow in use, also between calls, and notice within 70 s
    # that it died. The server accepts one every 10 s.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # Otherwise a new channel of this process shares the connection of the one that it replaces.
    ("grpc.use_local_subchannel_pool", 1),
    # By default gRPC stays away from a server that was down for up to two minutes. When replicas
    # are replaced one by one, each must be in use again before the next one goes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the service is and how to talk to it; channels are opened from it when needed."""

    address: str
    credentials: grpc.ChannelCredentials | None = None
    tls: Tls | None = None
    """Read when a channel is opened, and when the files change, unless there are `credentials`."""
    token: str | Callable[[], str] | None = field(default=None, repr=False)
    max_attempts: int = 1
    options: Sequence[ChannelOption] = ()
    """Channel arguments that replace the client's own of the same name."""

    def open(self, interceptors: Sequence[grpc.aio.ClientInterceptor] = ()) -> grpc.aio.Channel:
        """Open a channel for the running event loop, which it is bound to."""
        credentials = self._secured()
        if credentials is None:
            return grpc.aio.insecure_channel(
                self.address, options=self.channel_options(), interceptors=interceptors
            )
        return grpc.aio.secure_channel(
            self.address, credentials, options=self.channel_options(), interceptors=interceptors
        )

    def open_blocking(self) -> grpc.Channel:
        """Open a channel whose calls block their thread, and that any thread may use."""
        credentials = self._secured()
        if credentials is None:
            return grpc.insecure_channel(self.address, options=self.channel_options())
        return grpc.secure_channel(self.address, credentials, options=self.channel_options())

    def metadata(self) -> Metadata:
        """Return what each call sends along."""
        if self.token is None:
            return ()
        token = self.token
        if not isinstance(token, str):
            given = arguments.text("what the function `token` returns", token())
            token = checked_token(given, "the function `token`")
        return (("authorization", f"Bearer {token}"),)

    def files(self) -> tuple[str | os.PathLike[str], ...]:
        """Return the paths of the TLS files that a channel is opened with."""
        return () if self.credentials is not None or self.tls is None else self.tls.files()

    def _secured(self) -> grpc.ChannelCredentials | None:
        if self.credentials is not None or self.tls is None:
            return self.credentials
        return self.tls.credentials()

    def channel_options(self) -> tuple[ChannelOption, ...]:
        """Return what a channel is opened with: the client's options, then the caller's."""
        name = self.tls.server_name if self.tls else None
        # Each name once: of two with the same name gRPC takes the first.
        merged = {
            **dict(_COMMON_OPTIONS),
            **({"grpc.ssl_target_name_override": name} if name else {}),
            # gRPC sends loopback calls through `http_proxy` too, and no proxy reaches this machine.
            **({"grpc.enable_http_proxy": 0} if is_loopback(self.address) else {}),
            "grpc.service_config": service_config(self.max_attempts),
            **dict(self.options),
        }
        return tuple(merged.items())


def endpoint(
    address: str | None,
    *,
    channel_credentials: grpc.ChannelCredentials | None = None,
    call_credentials: grpc.CallCredentials | None = None,
    tls: Tls | None = None,
    token: str | Callable[[], str] | None = None,
    max_attempts: int = 1,
    options: Sequence[ChannelOption] = (),
) -> Endpoint:
    """Check the settings that a caller gave, and fill in the defaults and the environment's.

    Raises ValueError for one that is out of range, and TypeError.
    """
    arguments.optional_text("address", address)
    arguments.instance("tls", tls, Tls)
    arguments.instance("channel_credentials", channel_credentials, grpc.ChannelCredentials)
    arguments.instance("call_credentials", call_credentials, grpc.CallCredentials)
    arguments.text_or_function("token", token)
    max_attempts = arguments.whole("max_attempts", max_attempts)
    pairs = arguments.items("options", options, tuple, "(name, value) pairs")
    if not 1 <= max_attempts <= MOST_ATTEMPTS:
        message = f"max_attempts must be 1 to {MOST_ATTEMPTS}, not {max_attempts}"
        raise ValueError(message)
    credentials = channel_credentials
    if call_credentials is not None:
        if channel_credentials is None:
            message = "call_credentials need channel_credentials: gRPC sends them over TLS only"
            raise ValueError(message)
        credentials = grpc.composite_channel_credentials(channel_credentials, call_credentials)
    if channel_credentials is None and tls is None:
        tls = tls_from(os.environ)
    if isinstance(token, str):
        token = checked_token(token, "the argument `token`")
    return Endpoint(
        target_of(address, "address") if address and address.strip() else default_address(),
        credentials,
        tls,
        token_from_environment() if token is None else token,
        max_attempts,
        pairs,
    )


def default_address() -> str:
    """Return `HEADSTART_ADDRESS`, else the port that a server of this machine listens on.

    Raises ValueError for an address that names no server.
    """
    given = os.environ.get("HEADSTART_ADDRESS", "").strip()
    return target_of(given, "HEADSTART_ADDRESS") if given else f"localhost:{DEFAULT_PORT}"


def service_config(max_attempts: int) -> str:
    """Return gRPC's service config: spread calls over all servers, retry while that helps."""
    config: dict[str, object] = {"loadBalancingConfig": [{"round_robin": {}}]}
    if max_attempts > 1:
        config["methodConfig"] = [
            {
                "name": [
                    {"service": _SERVICE.full_name, "method": method} for method in _RETRIED_METHODS
                ],
                # Every call is idempotent, a restart by its request id: a retry can do no harm.
                "retryPolicy": {
                    "maxAttempts": max_attempts,
                    "initialBackoff": "0.05s",
                    "maxBackoff": "0.5s",
                    "backoffMultiplier": 2,
                    # A server that stops answers CANCELLED to calls that it has received and not
                    # yet begun.
                    "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
                },
            }
        ]
        # A service in trouble must not be buried under retries: they stop after 500 failures, until
        # calls succeed again. With fewer, one server that dies would fail most calls on it.
        config["retryThrottling"] = {"maxTokens": 1000, "tokenRatio": 0.1}
    return json.dumps(config)
