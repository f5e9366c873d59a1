from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart_service.auth.grants import Grant, Grants, Verb, digest_of
from headstart_service.auth.run_tokens import RUN_PREFIX, RunTokens
from headstart_service.auth.token_file import new_key_line, parsed, run_keys
from headstart_service.domain import RunKey
from headstart_service.domain.errors import PermissionDenied, StartupError, Unauthenticated

KEY = RunKey("shop", "game:1 é")
OLD, NEW = b"o" * 32, b"n" * 32
SHOP = {digest_of("secret"): Grant("shop", frozenset({"shop"}), frozenset({Verb.READ}))}


def signed(key: bytes) -> str:
    grants = Grants(SHOP, RunTokens([key]))
    return grants.sign(KEY, SHOP[digest_of("secret")], 60)[0]


def grant_of(token: str, keys: list[bytes], grants: dict[bytes, Grant] | None = None) -> Grant:
    return Grants(SHOP if grants is None else grants, RunTokens(keys)).admit(f"Bearer {token}")


def test_a_token_reads_its_run_alone() -> None:
    token = signed(NEW)
    grant = grant_of(token, [NEW])
    assert grant.covers(Verb.READ, "shop", KEY.key)
    for verb, namespace, key in (
        (Verb.READ, "shop", "other"),
        (Verb.READ, "shop", None),
        (Verb.READ, "default", KEY.key),
        (Verb.WRITE, "shop", KEY.key),
        (Verb.READ, None, None),
    ):
        assert not grant.covers(verb, namespace, key)
        with pytest.raises(PermissionDenied):
            grant.demand(verb, namespace, key)
    assert not grant.reads("shop"), "the live page shows all runs of a namespace"


def test_a_token_ends_with_its_time_its_granter_and_its_key() -> None:
    now = 1000.7
    signing = RunTokens([OLD], lambda: now)
    token, ends = signing.sign(KEY, "shop", 60)
    assert ends == 1_060_700, "to the millisecond: a token of a second lives for a second"
    assert signing.read(token) == (KEY, "shop")
    now = 1060.699
    assert signing.read(token) == (KEY, "shop")
    now = 1060.7
    with pytest.raises(Unauthenticated, match="has ended"):
        signing.read(token)
    token = signed(OLD)
    assert grant_of(token, [NEW, OLD]).run == KEY.key, "an older key still verifies"
    with pytest.raises(Unauthenticated, match="not one that this server has signed"):
        grant_of(token, [NEW])
    with pytest.raises(Unauthenticated):
        grant_of(token, [])
    with pytest.raises(Unauthenticated, match="no longer valid"):
        grant_of(token, [OLD], {})
    writer = {digest_of("s"): Grant("shop", frozenset({"shop"}), frozenset({Verb.WRITE}))}
    with pytest.raises(Unauthenticated, match="no longer valid"):
        grant_of(token, [OLD], writer)
    replaced = {digest_of("another secret"): SHOP[digest_of("secret")]}
    with pytest.raises(Unauthenticated, match="no longer valid"):
        grant_of(token, [OLD], replaced)
    with pytest.raises(Unauthenticated, match="no longer one"):
        Grants({}, RunTokens([OLD])).sign(KEY, SHOP[digest_of("secret")], 60)


@given(st.integers(0, 200), st.sampled_from("AZaz09-_.=$é \n"))
def test_a_token_that_was_changed_is_refused(place: int, letter: str) -> None:
    token, _ = RunTokens([NEW]).sign(KEY, "shop", 60)
    place = len(RUN_PREFIX) + place % (len(token) - len(RUN_PREFIX))
    for changed in (token[:place] + letter + token[place + more :] for more in (0, 1)):
        if changed != token:
            with pytest.raises(Unauthenticated):
                RunTokens([NEW]).read(changed)


def test_the_file_of_tokens_has_keys_the_first_of_which_signs() -> None:
    text = f"# no hmac: key\n{new_key_line('new')}\n{new_key_line('old')}\n"
    text += f"shop sha256:{digest_of('secret').hex()} shop read\n"
    assert list(parsed(text, Path("t"))) == [digest_of("secret")]
    first, second = run_keys(text)
    assert (len(first), len(second)) == (32, 32)
    token, _ = RunTokens([first, second]).sign(KEY, "shop", 60)
    assert RunTokens([first]).read(token)


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("k hmac:12 * sign", "64 hexadecimal digits"),
        (f"k hmac:{'a' * 64} shop sign", r"the namespaces \* and the verb sign alone"),
        (f"k hmac:{'a' * 64} * read", "the verb sign alone"),
        (f"k/ hmac:{'a' * 64} * sign", "the name must be"),
        (f"k sha256:{'a' * 64} * sign", "the verbs must be of"),
    ],
)
def test_a_wrong_key_is_named_by_its_line_and_not_quoted(line: str, rule: str) -> None:
    with pytest.raises(StartupError, match=f"line 1: .*{rule}") as caught:
        parsed(line, Path("t"))
    assert "aaaa" not in str(caught.value)
