"""Runs an image's command as a cluster would: its user, a read-only root, no capability, process 1.

No container engine is needed, but root is: the processes live in mount and process namespaces of
their own, chrooted into the image, and share this process's network.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_ENTER = """
set -e
root=$1; shift
mount --bind "$root" "$root"
# Every engine gives a container this file.
hosts=$(mktemp)
printf '127.0.0.1 localhost\n::1 localhost\n' > "$hosts"
chmod 644 "$hosts"
touch "$root/etc/hosts"
mount -o remount,bind,ro "$root"
mount --bind "$hosts" "$root/etc/hosts"
rm "$hosts"
mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o nosuid,nodev,mode=1777,size=64m tmpfs "$root/tmp"
exec chroot "$root" "$@"
"""


@dataclass(frozen=True)
class Image:
    """An image that is mounted, and what it says of itself."""

    name: str
    root: Path
    config: Mapping[str, Any]

    def command(self, *arguments: str, **environment: str) -> list[str]:
        """What runs the image's entry point, or with `arguments` that begin with a slash, them."""
        user, _, group = self.config["User"].partition(":")
        values = dict(item.split("=", 1) for item in self.config["Env"]) | environment
        what: Sequence[str] = arguments or self.config["Cmd"]
        if not what[0].startswith("/"):
            what = (*self.config["Entrypoint"], *what)
        return [
            *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation=private"),
            *("sh", "-c", _ENTER, "enter", str(self.root)),
            *("setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups"),
            *("--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"),
            *("env", "-i", f"--chdir={self.config['WorkingDir']}"),
            *(f"{name}={value}" for name, value in values.items()),
            *what,
        ]

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            self.command(*arguments, **environment),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=120,
            check=False,
        )


class Container:
    """The image's process, while it runs."""

    def __init__(self, image: Image, **environment: str) -> None:
        self.image = image
        self._output = tempfile.NamedTemporaryFile(prefix="headstart-image-", suffix=".log")
        self.began = time.monotonic()
        self._process = subprocess.Popen(
            image.command(**environment),
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
        )

    @property
    def output(self) -> str:
        return Path(self._output.name).read_text(errors="replace")

    @property
    def pid(self) -> int:
        """The image's process, as this side of its namespace numbers it."""
        parent = self._process.pid
        [child] = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        return int(child)

    @property
    def megabytes(self) -> float:
        """Its resident memory."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> int:
        """SIGTERM to process 1, as every engine does; gives the exit code."""
        os.kill(self.pid, signal.SIGTERM)
        return self._process.wait(30)

    def kill(self) -> None:
        """End it if it still runs."""
        if self.alive:
            self._process.kill()
        self._process.wait(30)
        self._output.close()


@contextmanager
def running(image: Image, **environment: str) -> Iterator[Container]:
    """A container that is gone after the context; its output is shown when something failed."""
    container = Container(image, **environment)
    try:
        yield container
    except BaseException:
        print(f"--- {image.name} said:\n{container.output}", flush=True)
        raise
    finally:
        container.kill()
