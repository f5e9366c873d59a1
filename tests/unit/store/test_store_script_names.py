"""Every function that a script calls is one that its text has: Redis finds out at run time alone."""

from __future__ import annotations

import re

import pytest

from headstart_service.store.scripts import SOURCES

LUA = {
    *("error", "ipairs", "next", "pairs", "pcall", "select", "tonumber", "tostring", "type"),
    *("unpack", "and", "or", "not", "if", "elseif", "while", "until", "return", "function", "in"),
}
_STRING = re.compile(r"'(?:[^'\\\n]|\\.)*'")
_CALL = re.compile(r"(?<![\w.:])([A-Za-z_]\w*) ?\(")
_LOCAL = re.compile(r"\b(?:local function|local|function)\s+([\w, ]+)")
_PARAMETERS = re.compile(r"\bfunction[ \w]*\(([\w, .]*)\)")


@pytest.mark.parametrize("name", SOURCES)
def test_every_function_that_a_script_calls_is_its_own_or_luas(name: str) -> None:
    text = _STRING.sub("''", SOURCES[name])
    own = {each for found in _LOCAL.findall(text) for each in re.findall(r"\w+", found)}
    own |= {each for found in _PARAMETERS.findall(text) for each in re.findall(r"\w+", found)}
    called = set(_CALL.findall(text))
    assert called - own - LUA == set()
    assert "transition" in own
