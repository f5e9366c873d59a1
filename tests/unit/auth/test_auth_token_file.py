"""The file of tokens: what it may say, what is told of a mistake, and how a change is noticed."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart_service.auth.grants import (
    Grant,
    Grants,
    Verb,
    digest_of,
)
from headstart_service.auth.token_file import (
    TokenFile,
    line_of,
    new_token,
    parsed,
)
from headstart_service.base.file_changes import fingerprint
from headstart_service.commands.cli import main
from headstart_service.domain.errors import PermissionDenied, StartupError, Unauthenticated
from tests.support.tokens import Tokens, tokens_of
from tests.support.virtual_time import run_virtually

DIGEST = f"sha256:{digest_of('t').hex()}"
PATH = Path("/etc/headstart/tokens")


def test_a_line_grants_namespaces_and_verbs() -> None:
    text = f"# who\n\n  shop\t{DIGEST}  a,b-2  read,write  \n"
    grant = Grant("shop", frozenset({"a", "b-2"}), frozenset({Verb.READ, Verb.WRITE}))
    assert parsed(text, PATH) == {digest_of("t"): grant}


def test_admin_is_all_of_everything() -> None:
    grant = parsed(f"ops {DIGEST} * admin", PATH)[digest_of("t")]
    assert all(grant.covers(verb, namespace) for verb in Verb for namespace in ("any", None))


def test_every_namespace_is_not_all_of_them_at_once() -> None:
    grant = parsed(f"wide {DIGEST} * read,write", PATH)[digest_of("t")]
    assert grant.covers(Verb.READ, "any")
    assert not grant.covers(Verb.READ, None)
    assert not grant.covers(Verb.ADMIN, "any")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (f"shop {DIGEST} a", "must be: name, digest, namespaces, verbs; has 3 of these"),
        (f"shop {DIGEST} a read # note", "has 6 of these"),
        (f"sh/op {DIGEST} a read", "the name must be"),
        ("shop hst_s3cret a read", "the digest must be"),
        (f"shop {DIGEST.upper()} a read", "the digest must be"),
        (f"shop {DIGEST} a;b read", "a namespace must be 1 to 64 characters"),
        (f"shop {DIGEST} a, read", "a namespace must be 1 to 64 characters"),
        (f"shop {DIGEST} a,* read", "* alone is every one"),
        (f"shop {DIGEST} a reed", "the verbs must be of read, write, metrics, admin"),
        (f"shop {DIGEST} a admin", "admin is for every namespace"),
        (f"shop {DIGEST} a read,metrics", "metrics is for every namespace"),
        (f"first {DIGEST.replace('sha256:', 'sha256:')} a read", "is the same token as line 1"),
        (f"ok {DIGEST[:-1]}0 a read", "has the same name as line 1: delete one of the two"),
    ],
)
def test_a_wrong_line_is_reported_by_its_number_and_never_quoted(line: str, told: str) -> None:
    with pytest.raises(StartupError) as caught:
        parsed(f"ok {DIGEST} a read\n\n{line}\n", PATH)
    message = str(caught.value)
    assert message.startswith(f"HEADSTART_TOKENS: {PATH} line 3: ")
    assert told in message
    assert "s3cret" not in message


@pytest.mark.promise(
    "The file holds no token; messages quote none", "SHA-256; rule and line number"
)
@given(st.text())
def test_any_text_is_read_or_told_in_one_line_that_quotes_none_of_it(text: str) -> None:
    try:
        grants = parsed(f"s3cret{text}", PATH)
    except StartupError as error:
        message = str(error)
        assert message.isprintable()
        assert "s3cret" not in message
    else:
        assert grants


def test_a_name_with_a_space_is_reported_as_a_wrong_name() -> None:
    with pytest.raises(ValueError, match="the name must be 1 to 64 letters"):
        line_of("sh op", "t", ["a"], ["read"])


def test_a_made_token_is_long_and_its_line_is_right() -> None:
    first, second = new_token(), new_token()
    assert first != second
    assert first.startswith("hst_")
    assert len(first) > 40
    line = line_of("shop", first, ["a"], ["read"])
    assert first not in line
    assert set(parsed(line, PATH)) == {digest_of(first)}
    with pytest.raises(ValueError, match="verbs"):
        line_of("shop", first, ["a"], ["everything"])


def replace(path: Path, text: str) -> None:
    """Put another file in its place, as a careful operator does."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


@pytest.mark.promise("A faulty file changes nothing", "startup fails; a reload keeps old tokens")
@pytest.mark.parametrize("wrong", ["nonsense hst_s3cret\n", "", "# none\n", "\udcff"])
def test_a_file_that_turned_wrong_leaves_the_old_tokens_and_is_reported_once(
    wrong: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = tokens_of(shop=("a", "read"))
    path = tokens.written(tmp_path / "tokens")
    file = TokenFile(path)
    replaced = path.with_suffix(".new")
    replaced.write_bytes(wrong.encode(errors="surrogateescape"))
    replaced.replace(path)
    for _ in range(3):
        file.look()
    assert accepts(file, tokens, "shop")
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert str(path) in record.getMessage()
    assert "s3cret" not in record.getMessage()
    path.unlink()
    file.look()
    assert accepts(file, tokens, "shop"), "a file that is gone takes nobody's token away"
    other = tokens_of(other=("a", "read"))
    replace(path, other.text)
    file.look()
    assert accepts(file, other, "other")
    assert not accepts(file, tokens, "shop")
    assert all(token not in caplog.text for token in tokens.by_name.values())


class Call:
    """A call that brings this metadata."""

    def __init__(self, metadata: tuple[tuple[str, str], ...]) -> None:
        self._metadata = metadata

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._metadata


def accepts(file: TokenFile, tokens: Tokens, name: str) -> bool:
    try:
        return file.grants.of_call(Call(tokens.metadata(name))).covers(Verb.READ, "a")  # type: ignore[arg-type]
    except Unauthenticated:
        return False


def test_tokens_are_neither_kept_nor_shown() -> None:
    tokens = tokens_of(shop=("a", "read"))
    grants = parsed(tokens.text, PATH)
    assert tokens.by_name["shop"] not in repr(grants)
    assert tokens.by_name["shop"].encode() not in grants


@pytest.mark.promise("Timing reveals no token", "`hmac.compare_digest`")
def test_each_token_is_compared_in_constant_time_and_none_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = tokens_of(a=("a", "read"), b=("a", "read"), c=("a", "read"))
    compared = []

    def compare(left: bytes, right: bytes) -> bool:
        compared.append(right)
        return left == right

    monkeypatch.setattr("headstart_service.auth.grants.hmac.compare_digest", compare)
    file = TokenFile(tokens.written(tmp_path / "tokens"))
    for name in ("a", "c", "stranger"):
        compared.clear()
        assert accepts(file, tokens, name) is (name != "stranger")
        assert len(compared) == 3
    compared.clear()
    assert accepts(file, tokens, "a")
    assert compared == [], "a header that was accepted is known"


def test_a_file_that_changes_is_read_within_a_second_and_what_is_wrong_is_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    first, second = tokens_of(shop=("a", "read")), tokens_of(b=("a", "read"), c=("a", "read"))
    path = first.written(tmp_path / "tokens")

    async def main() -> None:
        file = TokenFile(path)
        watching = asyncio.create_task(file.watch())
        replace(path, second.text)
        await asyncio.sleep(0.9)
        assert accepts(file, first, "shop")
        await asyncio.sleep(0.2)
        assert accepts(file, second, "b")
        assert not accepts(file, first, "shop")
        for text, refusals in (("nonsense", 1), ("other nonsense", 2), (first.text, 2)):
            replace(path, text)
            await asyncio.sleep(3.0)
            assert file.refusals == refusals
        watching.cancel()

    run_virtually(main())
    read = [line for line in caplog.messages if "tokens read" in line]
    assert read == [f"tokens read from {path}"] * 2


@pytest.mark.parametrize("what", ["time", "size", "inode", "link"])
def test_whatever_shows_that_a_file_is_another_is_seen(what: str, tmp_path: Path) -> None:
    path, target, other = tmp_path / "link", tmp_path / "a", tmp_path / "b"
    target.write_text("12345")
    other.write_text("54321" if what != "size" else "123456")
    path.symlink_to(target)
    missing = tmp_path / "missing"
    assert fingerprint([missing, missing]) == ((0, 0, 0), (0, 0, 0))
    for each in (target, other):
        os.utime(each, ns=(0, 1_000_000_007))
    [seen] = before = fingerprint([path])
    assert seen == (1_000_000_007, 5, target.stat().st_ino)
    if what == "time":
        os.utime(target, ns=(0, 1_000_000_008))
    elif what == "link":
        path.unlink()
        path.symlink_to(other)
    else:
        other.replace(target)
    assert fingerprint([path]) != before


def test_metrics_are_for_tokens_that_say_so_and_for_admins() -> None:
    tokens = tokens_of(
        reader=("a", "read,write"), scraper=("*", "metrics"), ops=("*", "admin"), both=("a", "read")
    )
    access = Grants(parsed(tokens.text, PATH))

    def header(name: str) -> str:
        return f"Bearer {tokens.by_name[name]}"

    for _ in range(2):  # also from memory
        access.check_metrics(header("scraper"))
        access.check_metrics(header("ops"))
        with pytest.raises(PermissionDenied, match="the token 'reader' lacks metrics") as caught:
            access.check_metrics(header("reader"))
    assert caught.value.missing == "metrics"
    with pytest.raises(Unauthenticated, match="Authorization: Bearer"):
        access.check_metrics(None)
    for wrong in ("", "Bearer", header("ops")[7:], header("ops") + "x"):
        with pytest.raises(Unauthenticated, match="not one that this server accepts"):
            access.check_metrics(wrong)
    assert access.admit(header("both").encode()).name == "both"
    with pytest.raises(Unauthenticated, match="metadata `authorization"):
        access.admit(None)


def test_headers_that_spell_a_token_in_many_ways_are_not_all_remembered() -> None:
    tokens = tokens_of(shop=("a", "read"))
    access = Grants(parsed(tokens.text, PATH))
    for number in range(64):
        scheme = "".join(
            letter.upper() if number >> place & 1 else letter
            for place, letter in enumerate("bearer")
        )
        assert access.admit(f"{scheme} {tokens.by_name['shop']}").name == "shop"
        assert access.remembered <= 9


@pytest.mark.parametrize(
    ("verb", "namespace", "covered"),
    [
        (Verb.READ, "a", True),
        (Verb.READ, "b", False),
        (Verb.READ, None, False),
        (Verb.WRITE, "a", False),
    ],
)
def test_a_grant_covers_its_verbs_in_its_namespaces(
    verb: Verb, namespace: str | None, *, covered: bool
) -> None:
    grant = Grant("t", frozenset({"a"}), frozenset({Verb.READ}))
    assert grant.covers(verb, namespace) is covered
    assert (grant.reads("a"), grant.writes("a"), grant.whole) == (True, False, False)
    assert Grant("t", None, frozenset({Verb.ADMIN})).whole


def test_the_token_command_grants_read_and_write_in_the_default_namespace(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["token", "shop"]) == 0
    told = capsys.readouterr()
    token = told.err.strip().rpartition(" ")[2]
    [(digest, grant)] = parsed(told.out, PATH).items()
    assert digest == digest_of(token)
    assert grant == Grant("shop", frozenset({"default"}), frozenset({Verb.READ, Verb.WRITE}))
    assert token not in told.out
    assert main(["token", "ops", "--namespaces", "*", "--verbs", "admin", "--json"]) == 0
    told = capsys.readouterr()
    assert told.err == ""
    [(digest, grant)] = parsed(json.loads(told.out)["line"], PATH).items()
    assert digest == digest_of(json.loads(told.out)["token"])
    assert grant == Grant("ops", None, frozenset({Verb.ADMIN}))
    assert main(["token", "a b"]) == 2
    told = capsys.readouterr()
    assert (told.out, told.err[:11]) == ("", "headstart: ")


def test_a_refusal_shows_no_more_of_a_namespace_than_one_may_have_and_names_what_is_missing() -> (
    None
):
    tokens = tokens_of(shop=("a", "read"))
    access = Grants(parsed(tokens.text, PATH))
    call: Any = Call(tokens.metadata("shop"))
    grant = access.of_call(call)

    def refused(verb: Verb, namespace: str | None) -> PermissionDenied:
        with pytest.raises(PermissionDenied) as caught:
            grant.demand(verb, namespace)
        return caught.value

    grant.demand(Verb.READ, "a")
    found = refused(Verb.READ, "x" * 200)
    assert str(found) == f"namespace: the token 'shop' lacks read in {'x' * 64!r}"
    found = refused(Verb.WRITE, "a")
    assert (found.missing, str(found)) == (
        "write",
        "namespace: the token 'shop' lacks write in 'a'",
    )
    assert "lacks read in 'default'" in str(refused(Verb.READ, "default"))
    found = refused(Verb.READ, None)
    assert found.missing == "admin"
    assert "lacks admin, which all namespaces at once need" in str(found)
