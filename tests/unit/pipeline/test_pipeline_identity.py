from __future__ import annotations

from typing import Any

import pytest

from headstart_service.domain.errors import StartupError
from headstart_service.pipeline.identity import identity_of, printable


class Provider:
    def __init__(self, identity: Any) -> None:
        self.identity = identity


class Broken:
    @property
    def identity(self) -> str:
        return self.not_yet_there  # type: ignore[attr-defined]


class Method:
    def identity(self) -> str:
        return "prices-2026"


def test_a_provider_without_an_identity_answers_the_same_everywhere() -> None:
    assert identity_of(object()) == ""
    assert identity_of(Provider("")) == ""
    assert identity_of(Provider("prices@sha256:0a~!")) == "prices@sha256:0a~!"


@pytest.mark.parametrize(
    ("provider", "found"),
    [
        (Provider(None), "of type NoneType"),
        (Provider(b"prices"), "of type bytes"),
        (Provider(7), "of type int"),
        (Method(), "of type method.* a property, if it is a method"),
        (Provider("two words"), "'two words': must be printable ASCII"),
        (Provider("line\n"), "must be printable ASCII without spaces"),
        (Provider("caf\N{LATIN SMALL LETTER E WITH ACUTE}"), "must be printable ASCII"),
        (Provider("\x7f" * 500), "must be printable ASCII"),
        (Broken(), "its property `identity` raises AttributeError"),
    ],
)
def test_another_identity_is_refused_and_names_its_provider(provider: object, found: str) -> None:
    with pytest.raises(StartupError, match=f"the provider {type(provider).__name__}: .*{found}"):
        identity_of(provider)


def test_any_text_is_part_of_an_identity_and_different_ones_stay_different() -> None:
    texts = ["all-MiniLM-L6-v2", "/a b", "/a%20b", "/a%b", "/a\udc80b", "/a\N{BULLET}b", "\n", ""]
    printed = [printable(text) for text in texts]
    assert printed[0] == texts[0]
    assert len(set(printed)) == len(texts)
    for each in printed:
        assert identity_of(Provider(each)) == each
