"""Addresses are completed, or refused with the right spelling before anything is opened."""

import pytest

from headstart import BlockingClient, PrecomputeClient
from headstart._transport.addresses import target_of
from headstart._transport.endpoint import endpoint

URL = "is a URL, not a gRPC target: write"
PORT = "with the port of gRPC (by default 50051), not that of HTTP"
TLS = "turn TLS on with tls=Tls() or HEADSTART_CA=system"


@pytest.mark.parametrize(
    ("address", "target"),
    [
        ("localhost:50051", "localhost:50051"),
        ("headstart", "headstart:50051"),
        ("10.0.0.1", "10.0.0.1:50051"),
        (" host_name:1\n", "host_name:1"),
        ("::1", "[::1]:50051"),
        ("[::1]", "[::1]:50051"),
        ("[::1]:7", "[::1]:7"),
        ("fe80::1%eth0", "[fe80::1%eth0]:50051"),
        ("dns:///headstart", "dns:///headstart:50051"),
        ("dns:///headstart:5", "dns:///headstart:5"),
        ("dns://1.1.1.1/headstart", "dns://1.1.1.1/headstart:50051"),
        ("dns:headstart", "dns:headstart:50051"),
        ("ipv4:10.0.0.1,10.0.0.2:7", "ipv4:10.0.0.1:50051,10.0.0.2:7"),
        ("ipv6:[::1],[::2]:7", "ipv6:[::1]:50051,[::2]:7"),
        ("unix:///run/head start.sock", "unix:///run/head start.sock"),
        ("unix:headstart.sock", "unix:headstart.sock"),
        ("xds:///headstart", "xds:///headstart"),
    ],
)
def test_addresses_that_name_a_server(address: str, target: str) -> None:
    assert target_of(address, "address") == target
    assert target_of(target, "address") == target
    assert endpoint(address).address == target


@pytest.mark.parametrize(
    ("address", "complaint"),
    [
        ("http://localhost:8080/", f"{URL} localhost:8080, {PORT}"),
        ("http://headstart", f"{URL} headstart:50051"),
        ("HTTP://headstart:1", f"{URL} headstart:1, {PORT}"),
        ("https://headstart/x?y", f"{URL} headstart:443; {TLS}"),
        ("https://[::1]:7", f"{URL} [::1]:7, {PORT}; {TLS}"),
        ("grpc://headstart", f"{URL} headstart:50051"),
        ("grpcs://", f"{URL} localhost:443; {TLS}"),
        ("passthrough:///h:1", "has a scheme that gRPC does not know: it knows dns, ipv4"),
        ("::1:50051", "an IPv6 address needs brackets, as in [::1]:50051"),
        ("1.2.3.4:5:6", "an IPv6 address needs brackets"),
        ("[headstart]:1", "is not [IPv6 address]:port, such as [::1]:50051"),
        ("[::1]x", "is not [IPv6 address]:port"),
        ("a:1,b:2", "names several servers: write ipv4:a:1,b:2"),
        (":1", "is not host:port, such as localhost:50051"),
        ("a b", "is not host:port, such as localhost:50051"),
        ("dns:", "is not host:port"),
        ("ipv4:", "is not host:port"),
        ("h:", "its port must be 1 to 65535, is ''"),
        ("h:http", "its port must be 1 to 65535, is 'http'"),
        ("h:0", "its port must be 1 to 65535, is '0'"),
        ("h:65536", "its port must be 1 to 65535, is '65536'"),
        ("h:²", "its port must be 1 to 65535, is '²'"),
        ("h:1/p", "its port must be 1 to 65535, is '1/p'"),
    ],
)
def test_addresses_that_name_none(
    address: str, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for client in (PrecomputeClient, BlockingClient):
        with pytest.raises(ValueError) as caught:
            client(address)
        assert str(caught.value).startswith(f"address {address!r} ")
        assert complaint in str(caught.value)
        assert caught.value.__suppress_context__
    monkeypatch.setenv("HEADSTART_ADDRESS", address)
    with pytest.raises(ValueError) as caught:
        PrecomputeClient()
    assert str(caught.value).startswith(f"HEADSTART_ADDRESS {address!r} ")


def test_a_password_in_a_url_is_not_repeated() -> None:
    with pytest.raises(ValueError) as caught:
        PrecomputeClient("https://me:s3c/r3t@headstart:8443/x")
    assert "3c" not in str(caught.value)
    assert "write headstart:8443" in str(caught.value)


def test_an_empty_address_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for empty in ("", " ", "\n"):
        monkeypatch.setenv("HEADSTART_ADDRESS", empty)
        for made in (endpoint(None), endpoint(empty)):
            assert made.address == "localhost:50051"
