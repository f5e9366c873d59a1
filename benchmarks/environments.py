"""Peers live in environments of their own: they pin versions that Headstart does not want."""

from __future__ import annotations

import asyncio
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from .harness import Unavailable

_HOME = Path.home() / ".cache" / "headstart-bench"
_PATIENCE = 300.0
_BORROWED = "borrowed.pth"


async def peer_python(name: str, requirements: Sequence[str], *, borrow: bool = False) -> Path:
    """The interpreter of the peer's environment, made at first use.

    With `borrow` it finds the packages of this environment too, behind its own: so a peer's worker
    computes with the same torch and the same model, without installing them again.

    Raises Unavailable when its packages cannot be installed.
    """
    python = await _installed(_HOME / name, requirements)
    borrowed = _own_packages(python) / _BORROWED
    if borrow:
        # Written anew each time: the cache outlives this environment, and serves others.
        ours = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
        borrowed.write_text("".join(f"{path}\n" for path in sorted(ours)))
    else:
        borrowed.unlink(missing_ok=True)
    return python


def _own_packages(python: Path) -> Path:
    """Where the environment of this interpreter has its packages; it is of our own version."""
    home = str(python.parent.parent)
    return Path(sysconfig.get_path("purelib", vars={"base": home, "platbase": home}))


async def _installed(home: Path, requirements: Sequence[str]) -> Path:
    """The interpreter of an environment that has them."""
    python = home / "bin" / "python"
    stamp = home / "installed.txt"
    wanted = "\n".join(requirements)
    if python.exists() and stamp.exists() and stamp.read_text() == wanted:
        return python
    print(f"setting up {home.name}: {' '.join(requirements)}", file=sys.stderr, flush=True)
    commands = [
        [sys.executable, "-m", "venv", "--clear", str(home)],
        [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *requirements],
    ]
    for command in commands:
        said = await _failure(command)
        if said is not None:
            by_hand = " && ".join(" ".join(_quoted(part) for part in each) for each in commands)
            raise Unavailable(f"{home.name} cannot be installed ({said}); by hand: {by_hand}")
    stamp.write_text(wanted)
    return python


async def _failure(command: Sequence[str]) -> str | None:
    """Run it; the last line that it said, if it failed."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(_PATIENCE):
            output, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        return f"it took longer than {_PATIENCE:g} s"
    lines = output.decode(errors="replace").strip().splitlines() or ["it said nothing"]
    return lines[-1] if process.returncode else None


def _quoted(part: str) -> str:
    return f"'{part}'" if "[" in part or " " in part else part
