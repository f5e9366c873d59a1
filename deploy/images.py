"""Build the two images: `make image`. With Docker if it runs here, else with buildah.

Python packages are downloaded by this machine's pip, as it is configured here, into a directory
that the build is given: an index of one's own or a proxy is set up once, for pip, and the build
itself needs none of them. Torch's build for CPUs comes from PyTorch's index if pip's has it not.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import platformdirs

from . import cpu_torch
from .pins import BACKEND_LOCK, LOCKS, ROOT

TARGETS = ("api", "worker")
CACHE = Path(platformdirs.user_cache_dir("headstart", appauthor=False)) / "images"
"""Where downloads, and what `make image-test` builds, are kept for the next time."""
LOCK_FILES = (*LOCKS.values(), BACKEND_LOCK)
_LOCKED_FOR = re.compile(r"on Python (3\.\d+),\n# linux-(\w+)\.")
_TORCH_PIN = re.compile(r"^torch==(?:.*\\\n)*.*\n", re.MULTILINE)


class Buildah:
    """The command, with the options that stand before its subcommand."""

    name = "buildah"

    def __init__(self, *options: str) -> None:
        self._command = ["buildah", *options]

    def run(self, *arguments: str) -> str:
        """What a subcommand prints. Raises CalledProcessError, after showing what went wrong."""
        command = [*self._command, *arguments]
        done = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE)  # noqa: S603
        return done.stdout.strip()

    def build(self, *arguments: str) -> None:
        """Build an image, showing its progress."""
        # HEALTHCHECK is no part of the OCI format.
        options = ("--layers", "--format=docker", "--network=host", *arguments)
        subprocess.run([*self._command, "bud", *options], check=True)  # noqa: S603


class Docker:
    """The command, of a Docker that has BuildKit."""

    name = "docker"

    @staticmethod
    def build(*arguments: str) -> None:
        """Build an image, showing its progress."""
        subprocess.run(["docker", "buildx", "build", "--load", *arguments], check=True)  # noqa: S603, S607


def builder() -> Docker | Buildah:
    """What builds images here. Raises SystemExit that says what to install."""
    if shutil.which("docker"):
        asked = subprocess.run(["docker", "info"], capture_output=True, check=False)  # noqa: S607
        if asked.returncode == 0:
            return Docker()
    if shutil.which("buildah"):
        return Buildah()
    raise SystemExit(
        "make image needs a running Docker, or buildah: apt-get (or dnf) install buildah"
    )


def wheels(
    directory: Path = CACHE / "wheels",
    torch_index: str = cpu_torch.INDEX,
    locks: Sequence[Path] = LOCK_FILES,
) -> Path:
    """The wheels of these requirement files, downloaded unless they are there already.

    Raises SystemExit when pip cannot, and says what to do if it is torch that it does not find.
    """
    text = "".join(path.read_text() for path in locks)
    stamp = directory / hashlib.sha256(text.encode()).hexdigest()
    if stamp.exists():
        return directory
    print(f"wheels: downloading into {directory}", flush=True)
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    found = _LOCKED_FOR.search(text)
    assert found is not None, "the requirement files do not say what they are locked for"
    # Another Python than the image's may download; so each is told what, and not asked which apply.
    options = ["--python-version", found[1], "--implementation", "cp", "--only-binary=:all:"]
    for tag in (*(f"manylinux_2_{minor}" for minor in range(5, 40)), "manylinux2014", "linux"):
        options += ["--platform", f"{tag}_{found[2]}"]
    options += ["--require-hashes", "--dest", str(directory)]
    torch = directory / "requirements-torch.txt"
    for path in locks:
        plain = directory / path.name
        text = re.sub(r" ; [^\\]*\\", r" \\", path.read_text())
        if pinned := _TORCH_PIN.search(text):
            torch.write_text(pinned[0])
            command = ["download", *options]
            cpu_torch.get(torch_index, *command, requirement=torch, target="image", otherwise="")
        plain.write_text(_TORCH_PIN.sub("", text))
        command = [sys.executable, "-m", "pip", "download", "--no-deps", *options]
        command += ["--requirement", str(plain)]
        if subprocess.run(command, check=False).returncode:  # noqa: S603  # all ours
            raise SystemExit(f"pip did not get what {path.name} names")
        plain.unlink()
    torch.unlink()
    stamp.touch()
    return directory


def build(
    with_: Docker | Buildah,
    target: str,
    tag: str,
    arguments: Mapping[str, str],
    torch_index: str = cpu_torch.INDEX,
) -> None:
    """Build one target as `tag`, from wheels that are here."""
    given: Sequence[str] = [f"--build-arg={name}={value}" for name, value in arguments.items()]
    with_.build(
        f"--target={target}",
        f"--tag={tag}",
        f"--file={ROOT / 'deploy' / 'Dockerfile'}",
        f"--build-context=wheels={wheels(torch_index=torch_index)}",
        *given,
        str(ROOT),
    )


def main() -> None:
    """Build both images."""
    parser = argparse.ArgumentParser(prog="python -m deploy.images", description=__doc__)
    parser.add_argument(
        "--name", default="headstart", help="repository; the images are NAME-api and NAME-worker"
    )
    tag = version("headstart")
    parser.add_argument("--tag", default=tag, help=f"their tag (default: {tag})")
    parser.add_argument("--base", help="base image, instead of the Dockerfile's")
    parser.add_argument(
        "--torch-index", default=cpu_torch.INDEX, help="where torch's build for CPUs is"
    )
    options = parser.parse_args()
    with_ = builder()
    for target in TARGETS:
        image = f"{options.name}-{target}:{options.tag}"
        print(f"{image}: building with {with_.name}", flush=True)
        arguments = {"BASE_IMAGE": options.base} if options.base else {}
        build(with_, target, image, arguments, options.torch_index)
        print(f"{image}: built")


if __name__ == "__main__":
    main()
