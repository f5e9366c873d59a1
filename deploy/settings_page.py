"""Writes docs/settings.md, the reference of every setting, from the settings themselves."""

from __future__ import annotations

from typing import Final

from headstart_service.config_command import Row, rows
from headstart_service.settings import Settings

from .pins import ROOT

PAGE = ROOT / "docs" / "settings.md"
_DEFAULTS: Final = {
    "HEADSTART_DATA_DIR": "`headstart` in the user's data directory",
    "HEADSTART_VOCABULARY": "`headstart/vocabulary` in the user's cache directory",
}
"""Defaults that depend on who asks."""
_HEADING: Final = """\
# Settings

Every setting of `headstart serve` and `headstart worker`, written by `make docs` from
[`settings.py`](../service/headstart_service/settings.py); a test compares the two. A flag wins over its
environment variable, that over the default. Durations are in seconds.

| variable | flag | default | allowed | meaning |
|---|---|---|---|---|
"""
_END: Final = """
## Wrong settings

A server that is given a wrong setting does not start. It exits with 2 and one message that names every wrong setting,
the flag or variable that its value came from, and what is allowed; `headstart check-config` says the same without
starting. Beyond each setting's own range:

| rule | refused as |
|---|---|
| `HEADSTART_MAX_CACHED_RESULTS`, and `HEADSTART_MAX_QUEUED` and `HEADSTART_NAMESPACE_MAX_RESULTS` unless 0, are at \
least `HEADSTART_PARTITIONS` | cannot be shared out |
| `HEADSTART_TLS_CERT` and `HEADSTART_TLS_KEY` go together, `HEADSTART_TLS_CLIENT_CA` only with them; the files fit | \
must be set too |
| without TLS, `HEADSTART_HOST` is a loopback address, unless `HEADSTART_INSECURE` | can be read on the network |
| `HEADSTART_GRPC_PORT` and `HEADSTART_HTTP_PORT` differ, unless 0 | they must differ |
| `HEADSTART_TOKENS` names a file in which every line is a token's | the file and the line |
| every name in `HEADSTART_PIPELINES` can be loaded | cannot load |
| a worker has a `HEADSTART_REDIS_URL` | a worker needs the Redis of its API processes |

A variable that begins with `HEADSTART_` and that nobody reads is warned of, with the nearest that somebody does. In
Kubernetes a Service called `headstart-grpc` would set `HEADSTART_GRPC_PORT` in every pod beside it: give pods
`enableServiceLinks: false`.

## Variables of clients

| variable | meaning |
|---|---|
| `HEADSTART_ADDRESS` | the server; default `localhost:50051` |
| `HEADSTART_CA` | PEM file of whom to trust, or `system`; turns TLS on |
| `HEADSTART_CLIENT_CERT`, `HEADSTART_CLIENT_KEY` | PEM files of the client's own certificate and key (mTLS) |
| `HEADSTART_SERVER_NAME` | the name in the server's certificate, if it is not the address's host |
| `HEADSTART_TOKEN`, `HEADSTART_TOKEN_FILE` | the token, or the file that holds it |
"""


def page() -> str:
    """The page's text."""
    # Built without the environment: the page shows defaults.
    found = rows(Settings.model_construct(), {})
    return _HEADING + "".join(_line(row) for row in found) + _END


def _line(row: Row) -> str:
    default = _DEFAULTS.get(row.variable) or _shown(row.default)
    flag = f"`{row.flag}`" if row.flag else "none"
    if row.default is True or row.default is False:
        flag = f"`{row.flag}`, `--no-{str(row.flag).removeprefix('--')}`"
    meaning = row.meaning.replace("|", "\\|")
    return f"| `{row.variable}` | {flag} | {default} | {row.allowed} | {meaning} |\n"


def _shown(value: object) -> str:
    if value is None or value == []:
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


if __name__ == "__main__":
    PAGE.write_text(page())
