"""What grants refuse and remember, and when the file that gives them is read again."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from headstart_service.auth.grants import Grant, Grants, Verb, digest_of
from headstart_service.auth.token_file import TokenFile, line_of
from headstart_service.domain.errors import PermissionDenied, Unauthenticated
from tests.support.virtual_time import run_virtually


def test_a_refusal_shows_64_characters_of_a_namespace() -> None:
    access = Grants({digest_of("t"): Grant("shop", frozenset({"shop"}), frozenset({Verb.READ}))})
    context: Any = SimpleNamespace(invocation_metadata=lambda: (("authorization", "bearer t"),))
    with pytest.raises(PermissionDenied) as refused:
        access.of_call(context).demand(Verb.READ, "n" * 65)
    assert str(refused.value).endswith(f"lacks read in {'n' * 64!r}")
    assert (refused.value.field, refused.value.missing) == ("namespace", Verb.READ)
    with pytest.raises(PermissionDenied, match="lacks admin, which all namespaces") as refused:
        access.of_call(context).demand(Verb.READ, None)
    assert refused.value.missing == Verb.ADMIN
    access.of_call(context).demand(Verb.READ, "shop")
    with pytest.raises(PermissionDenied, match="lacks metrics") as refused:
        access.check_metrics("Bearer t")
    assert (refused.value.field, refused.value.missing) == ("authorization", Verb.METRICS)
    with pytest.raises(Unauthenticated, match="send `Authorization: Bearer <token>`"):
        access.check_metrics(None)


def test_ways_to_spell_a_token_are_remembered_eight_for_each_grant() -> None:
    access = Grants({digest_of("t"): Grant("one", None, frozenset({Verb.ADMIN}))})
    spelt = [
        "".join(
            letter.upper() if number >> bit & 1 else letter for bit, letter in enumerate("bear")
        )
        for number in range(12)
    ]
    for number, each in enumerate(spelt, 1):
        access.admit(f"{each}er t")
        assert access.remembered == (number if number <= 9 else number - 9)


def test_a_file_of_tokens_is_looked_at_every_second_and_logged_when_it_changes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "headstart_service")
    path = tmp_path / "tokens"
    path.write_text(line_of("one", "t", ["*"], ["admin"]))

    async def watched() -> None:
        tokens = TokenFile(path)
        watching = asyncio.create_task(tokens.watch())
        await asyncio.sleep(0.5)
        both = [line_of("one", "t", ["*"], ["admin"]), line_of("two", "u", ["shop"], ["read"])]
        path.write_text("\n".join(both))
        await asyncio.sleep(0.49)
        with pytest.raises(Unauthenticated):
            tokens.grants.admit("Bearer u")
        await asyncio.sleep(0.02)
        assert tokens.grants.admit("Bearer u").name == "two"
        path.write_text("nonsense")
        for _ in range(3):
            await asyncio.sleep(1.0)
            assert tokens.refusals == 1, "one refusal is counted once"
        assert tokens.grants.admit("Bearer u").name == "two"
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching

    run_virtually(watched())
    assert [record.getMessage().partition(" ")[0] for record in caplog.records] == ["tokens", "the"]
