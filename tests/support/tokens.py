"""Tokens that tests call with, and the file that a server reads them from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from headstart_service.auth.token_file import line_of, new_token


@dataclass(frozen=True)
class Tokens:
    """A token by each name, and the text of the file that accepts them."""

    by_name: Mapping[str, str]
    text: str

    def metadata(self, name: str | None) -> tuple[tuple[str, str], ...]:
        """What a call with this token sends; a name that nobody has sends a wrong one."""
        if name is None:
            return ()
        token = self.by_name.get(name) or new_token()
        return (("authorization", f"Bearer {token}"),)

    def written(self, path: Path) -> Path:
        path.write_text(self.text)
        return path


def tokens_of(**grants: tuple[str, str]) -> Tokens:
    """A token for each name, with its namespaces and verbs as the file says them."""
    made = {name: new_token() for name in grants}
    lines = [
        line_of(name, made[name], namespaces.split(","), verbs.split(","))
        for name, (namespaces, verbs) in grants.items()
    ]
    return Tokens(made, "".join(f"{line}\n" for line in ("# made by a test", "", *lines)))
