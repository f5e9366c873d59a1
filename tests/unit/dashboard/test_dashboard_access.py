"""Who may look: by host, peer, token and namespace."""

from __future__ import annotations

import pytest
from starlette.requests import Request

from headstart_service.auth.grants import EVERYTHING, Grant, Verb
from headstart_service.dashboard.access import Door, View, view_of
from headstart_service.domain.errors import PermissionDenied


def request(peer: str = "127.0.0.1", **headers: str) -> Request:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "headers": raw, "client": (peer, 1)})


def door(**rules: object) -> Door:
    return Door(**({"host": "127.0.0.1", "tokens": False, "open": True} | rules))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:8080",
        "a.localhost",
        "127.0.0.1:1",
        "[::1]:8080",
        "[::1]",
        "10.0.0.7",
    ],
)
def test_this_machines_names_and_any_address_are_let_in(host: str) -> None:
    door().check(request(host=host))


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:8080", "", "["]
)
def test_any_other_name_is_refused_unless_tokens_are_asked_for(host: str) -> None:
    with pytest.raises(PermissionDenied, match="without tokens"):
        door().check(request(host=host))
    door(tokens=True).check(request(host=host))


@pytest.mark.promise(
    "Results are not sent unencrypted by accident", "loopback only without `HEADSTART_INSECURE`"
)
@pytest.mark.parametrize("peer", ["127.0.0.1", "::1", "::ffff:127.0.0.1", "10.1.2.3", ""])
def test_where_the_port_is_in_the_clear_other_machines_are_refused(peer: str) -> None:
    closed = door(tokens=True, open=False)
    if peer in ("10.1.2.3", ""):
        with pytest.raises(PermissionDenied, match="speaks no TLS"):
            closed.check(request(peer, host="x"))
    else:
        closed.check(request(peer, host="x"))
    door(tokens=True).check(request(peer, host="x"))


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_what_another_site_caused_is_refused(site: str) -> None:
    with pytest.raises(PermissionDenied, match="another site"):
        door(tokens=True).check(request(host="localhost", sec_fetch_site=site))
    door().check(request(host="localhost", sec_fetch_site="same-origin"))


def grant(namespaces: str | None, *verbs: Verb) -> Grant:
    return Grant(
        "t", None if namespaces is None else frozenset(namespaces.split(",")), frozenset(verbs)
    )


def test_a_view_is_what_the_token_covers() -> None:
    assert view_of(EVERYTHING, "") == View(None, whole=True)
    assert view_of(EVERYTHING, "shop") == View(frozenset({"shop"}), whole=True)
    assert view_of(grant("a,b", Verb.READ), "") == View(frozenset({"a", "b"}), whole=False)
    assert view_of(grant("a,b", Verb.READ), "b") == View(frozenset({"b"}), whole=False)
    assert view_of(grant(None, Verb.READ), "b") == View(frozenset({"b"}), whole=False)
    for refused, namespace, missing in (
        (grant("a", Verb.READ), "b", "read"),
        (grant("a", Verb.WRITE), "a", "read"),
        (grant("a", Verb.WRITE), "", "read"),
        (grant(None, Verb.READ), "", "admin"),
        (EVERYTHING, "No Such:Name", "read"),
    ):
        with pytest.raises(PermissionDenied) as caught:
            view_of(refused, namespace)
        assert caught.value.missing == missing


def test_a_refusal_shows_no_more_of_a_namespace_than_one_may_have() -> None:
    with pytest.raises(PermissionDenied, match=r"lacks read in '(x{64})'$"):
        view_of(grant("a", Verb.READ), "x" * 200)


def test_a_request_without_a_host_or_a_peer_is_refused() -> None:
    with pytest.raises(PermissionDenied, match="without tokens"):
        door().check(request())
    closed = door(tokens=True, open=False)
    with pytest.raises(PermissionDenied, match="speaks no TLS"):
        closed.check(Request({"type": "http", "headers": [], "client": None}))
    door(host="Shop.Example").check(request(host="shop.example.:8080"))
