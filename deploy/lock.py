"""Write the requirement files that have hashes: `make lock`, after constraints.txt changed.

pip resolves each image's extras under constraints.txt, downloads nothing that it need not, and
reports the file that it would install for this Python and platform, with its hash.
"""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from typing import Any

from .pins import (
    BACKEND,
    BACKEND_LOCK,
    CONSTRAINTS,
    LOCKS,
    POLICY_LOCK,
    POLICY_TOOLS,
    ROOT,
    pins,
)

_HEADER = """\
# Made by `make lock`: what {what} needs on Python {python},
# {platform}. Elsewhere other files have other hashes: make it anew there.
#
#     pip install --require-hashes --no-deps -r {name}
"""
_LOCAL = """\
# {pin} is a build of its own, for CPUs. PyTorch's own index has it; PyPI has not, and its
# wheels of this version bring several GB of CUDA packages. Give pip that index, or the wheel.
"""
_OLDER = {"async-timeout": 'python_full_version < "3.11.3"'}
"""What redis needs on the earliest releases of Python 3.11 alone, Debian 12's for example.

pip resolves for the release that runs it; a base image may have another.
"""


def main() -> None:
    """Resolve and write all of them."""
    for extras, path in LOCKS.items():
        found = _resolved(f"{ROOT}[{extras}]", *_OLDER)
        path.write_text(_locked(f"headstart[{extras}]", path.name, found))
        print(f"wrote {path.relative_to(ROOT)}")
    BACKEND_LOCK.write_text(_locked(BACKEND, BACKEND_LOCK.name, _resolved(BACKEND)))
    print(f"wrote {BACKEND_LOCK.relative_to(ROOT)}")
    if POLICY_LOCK.exists() and set(POLICY_TOOLS) <= {
        f"{n}=={v}" for n, v in pins(POLICY_LOCK).items()
    }:
        return  # a hundred distributions, some minutes
    found = _resolved(*POLICY_TOOLS, constrained=False)
    POLICY_LOCK.write_text(_locked("`make manifests`", POLICY_LOCK.name, found))
    print(f"wrote {POLICY_LOCK.relative_to(ROOT)}")


def _resolved(*what: str, constrained: bool = True) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run"]
    command += ["--disable-pip-version-check", "--ignore-installed", "--only-binary=:all:"]
    command += ["--constraint", str(CONSTRAINTS)] if constrained else []
    command += ["--report", "-", *what]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)  # noqa: S603  # all ours
    found: list[dict[str, Any]] = json.loads(done.stdout)["install"]
    return [item for item in found if item["metadata"]["name"] != "headstart"]


def _locked(what: str, name: str, items: list[dict[str, Any]]) -> str:
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    text = _HEADER.format(what=what, python=python, platform=sysconfig.get_platform(), name=name)
    for item in sorted(items, key=lambda each: each["metadata"]["name"].lower()):
        pin = f"{item['metadata']['name']}=={item['metadata']['version']}"
        digest = item["download_info"]["archive_info"]["hashes"]["sha256"]
        text += _LOCAL.format(pin=pin) if "+" in pin else ""
        marker = _OLDER.get(item["metadata"]["name"])
        text += f"{pin} ; {marker}" if marker else pin
        text += f" \\\n    --hash=sha256:{digest}\n"
    return text


if __name__ == "__main__":
    main()
