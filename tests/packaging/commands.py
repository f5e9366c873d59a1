"""Commands that packaging tests run to their end."""

from __future__ import annotations

import subprocess


def run(*command: object, check: bool = True) -> str:
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 or not check, done.stderr
    return done.stdout + done.stderr
