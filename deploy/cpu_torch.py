"""Get torch's build for CPUs on Linux: from pip's own indexes, or else from PyTorch's.

PyPI's build for Linux brings some 3 GB of CUDA packages, which nothing here uses. Elsewhere PyPI's
build is the one for CPUs. Needs pip alone: it runs before anything is installed.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

INDEX = "https://download.pytorch.org/whl/cpu"
_CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"
_FAILED = """
torch {version} for CPUs was not found. pip's own indexes have no torch=={version}+cpu, and
{index} does not give it.

    make {target} TORCH_INDEX=URL   takes it from a mirror of that index
{otherwise}"""
OR_CUDA = "    make setup TORCH_INDEX=       takes PyPI's build: it downloads 3 GB more\n"


def version() -> str:
    """Return the version of torch that constraints.txt pins."""
    found = re.search(r"^torch==(\S+)$", _CONSTRAINTS.read_text(), re.MULTILINE)
    assert found is not None, "constraints.txt does not pin torch"
    return found[1]


def get(
    index: str,
    *command: str,
    requirement: Path | None = None,
    target: str = "setup",
    otherwise: str = OR_CUDA,
) -> None:
    """Run a command of pip, such as `install`, for torch's build for CPUs.

    `requirement` is a file that pins it with its hash. Raises SystemExit, with what to do, when
    neither pip's own indexes nor `index` have it.
    """
    what = ["--requirement", str(requirement)] if requirement else [f"torch=={version()}+cpu"]
    if _pip([*command, *what], quietly=True) or _pip([*command, "--index-url", index, *what]):
        return
    raise SystemExit(
        _FAILED.format(version=version(), index=index, target=target, otherwise=otherwise)
    )


def _pip(command: Sequence[str], *, quietly: bool = False) -> bool:
    """Whether pip did it, without what torch needs: that comes from pip's own indexes."""
    whole = [sys.executable, "-m", "pip", "--disable-pip-version-check", *command, "--no-deps"]
    output = subprocess.DEVNULL if quietly else None
    return not subprocess.run(whole, check=False, stderr=output).returncode  # noqa: S603  # all ours


if __name__ == "__main__" and sys.platform == "linux" and sys.argv[1]:
    get(sys.argv[1], "install")
