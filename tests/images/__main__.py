"""Build both images without a registry or an engine, look into them, and play a game: `make image-test`.

The base is a Debian that mmdebstrap makes. Downloads, base, layers and the embedded vocabulary are
kept in the user's cache directory, so that only the first run takes minutes; `make image-clean`
removes them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deploy.images import CACHE, ROOT, TARGETS, Buildah, build
from tests.images.container import Image

_TOOLS = {"buildah": "buildah", "mmdebstrap": "mmdebstrap", "unshare": "util-linux"}
_SUITE = "bookworm"
_BASE = f"localhost/headstart-base:{_SUITE}"
_KEEP_GB = 20
"""Each version leaves its layers behind; beyond this, all go, and the next build makes them anew."""
_OWN_MOUNTS = "IMAGE_TEST_HAS_ITS_OWN_MOUNTS"
_BEGAN = time.monotonic()


def say(text: str) -> None:
    """One line, with the seconds since the beginning."""
    print(f"[{time.monotonic() - _BEGAN:4.0f} s] {text}", flush=True)


def missing() -> str:
    """What this machine lacks; nothing if it can do all."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "make image-test needs Linux and root: it chroots into the images"
    packages = [package for tool, package in _TOOLS.items() if not shutil.which(tool)]
    if packages:
        return f"make image-test lacks tools: apt-get install {' '.join(packages)}"
    return ""


def storage(run: Path) -> Buildah:
    """A buildah with a storage of its own, which keeps layers as overlays where that works."""
    trial = CACHE / "trial"  # on the same file system
    parts = [trial / name for name in ("lower", "upper", "work", "merged")]
    for part in parts:
        part.mkdir(parents=True, exist_ok=True)
    options = f"lowerdir={parts[0]},upperdir={parts[1]},workdir={parts[2]}"
    mount = ["mount", "-t", "overlay", "-o", options, "overlay", str(parts[3])]
    works = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    if works:
        subprocess.run(["umount", str(parts[3])], check=True)
    shutil.rmtree(trial)
    driver = "overlay" if works else "vfs"
    say(f"storage: {CACHE}, {driver}")
    # What is mounted is noted in the run root: not for longer than the mounts.
    places = (f"--root={CACHE / driver}", f"--runroot={run}")
    buildah = Buildah(*places, f"--storage-driver={driver}")
    buildah.run("rm", "--all")  # of a run that was killed
    return buildah


def base(buildah: Buildah) -> None:
    """Make the base image unless it is there."""
    if _BASE in buildah.run("images", "--format={{.Name}}:{{.Tag}}").split():
        say(f"{_BASE}: kept from before")
        return
    say(f"{_BASE}: made by mmdebstrap")
    archive = CACHE / "base.tar"
    command = ["mmdebstrap", "--quiet", "--variant=minbase", "--include=python3,python3-venv"]
    command += ["--aptopt=Apt::Install-Recommends false", _SUITE, str(archive)]
    subprocess.run(command, check=True)
    container = buildah.run("from", "scratch")
    buildah.run("add", "--quiet", container, str(archive), "/")
    buildah.run("commit", "--quiet", "--rm", container, _BASE)
    archive.unlink()


@contextmanager
def mounted(buildah: Buildah, name: str) -> Iterator[Image]:
    """An image, mounted while the context is open."""
    described = json.loads(buildah.run("inspect", "--type=image", name))
    container = buildah.run("from", name)
    try:
        root = Path(buildah.run("mount", container))
        yield Image(name, root, described["Docker"]["config"])
    finally:
        buildah.run("rm", container)


def look(image: Image, target: str) -> None:
    """What every image must be. Raises AssertionError."""
    config: Mapping[str, Any] = image.config
    user, _, group = config["User"].partition(":")
    assert int(user) > 0
    assert int(group) > 0
    assert config["Healthcheck"]["Test"][0] == "CMD"
    assert config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
    secrets = [item for item in config["Env"] if "KEY" in item or "TOKEN" in item]
    assert not secrets, secrets
    home = image.root / "opt" / "headstart"
    packages = {path.name for path in home.glob("lib/python3*/site-packages/*")}
    for unwanted in {"pip", "setuptools"} if target == "api" else {"pip"}:
        assert unwanted not in packages, f"{unwanted} is in it"
    heavy = {"onnxruntime", "numpy", "tokenizers", "anthropic"}
    never = {"torch", "transformers", "sentence_transformers", "sklearn", "onnx"}
    assert "opentelemetry" in packages, "HEADSTART_TRACING would end it"
    assert heavy <= packages if target == "worker" else not heavy & packages
    assert not never & packages, never & packages
    compiled = list((home / "code" / "headstart_service").glob("__pycache__/sdk.*.pyc"))
    assert compiled, "no bytecode"
    assert not (image.root / "root" / ".cache").exists(), "a cache is left"
    assert not (image.root / "src").exists(), "sources are left"
    # The temporary directory, a mount of its own, is all that it may write to.
    look = "find / -xdev -writable ! -type l ! -path /tmp 2>/dev/null; touch /x"
    test = image.run("/bin/sh", "-c", look)
    writable = [line for line in test.stdout.splitlines() if line.startswith("/")]
    assert not writable, writable
    assert "Read-only file system" in test.stdout, test.stdout
    version = image.run("/usr/bin/env", "headstart", "check-config", HEADSTART_HOST="127.0.0.1")
    assert version.returncode == 0, version.stdout
    size = sum(path.lstat().st_blocks * 512 for path in image.root.rglob("*")) / 1e6
    ours = sum(path.lstat().st_blocks * 512 for path in home.rglob("*")) / 1e6
    assert ours < {"api": 100, "worker": 500}[target], f"{ours:.0f} MB without the base image"
    say(
        f"{image.name}: {size:.0f} MB, {ours:.0f} of them ours; user {config['User']}; all in order"
    )


def main() -> int:
    """Build, look, play."""
    if what := missing():
        print(what, file=sys.stderr)
        return 1
    if _OWN_MOUNTS not in os.environ:
        # Whatever is mounted here is gone with this process, however that ends.
        command = [
            "unshare",
            "--mount",
            "--propagation=private",
            sys.executable,
            "-m",
            "tests.images",
        ]
        os.execvpe(command[0], command, os.environ | {_OWN_MOUNTS: "1"})
    with tempfile.TemporaryDirectory(prefix="headstart-images-") as run:
        test(storage(Path(run)))
    return 0


def test(buildah: Buildah) -> None:
    """Build, look, play, with this storage."""
    os.environ["BUILDAH_ISOLATION"] = "chroot"
    # Where buildah keeps the vocabulary between builds.
    os.environ["TMPDIR"] = str(CACHE / "tmp")
    (CACHE / "tmp").mkdir(exist_ok=True)
    base(buildah)
    for target in TARGETS:
        say(f"localhost/headstart-{target}: building")
        build(buildah, target, f"localhost/headstart-{target}:test", {"BASE_IMAGE": _BASE})
    del os.environ["TMPDIR"]
    with (
        mounted(buildah, "localhost/headstart-api:test") as api,
        mounted(buildah, "localhost/headstart-worker:test") as worker,
    ):
        look(api, "api")
        look(worker, "worker")
        say("a game, without a network:")
        described = [
            {"name": image.name, "root": str(image.root), "config": image.config}
            for image in (api, worker)
        ]
        command = ["unshare", "--net", sys.executable, "-m", "tests.images.play"]
        subprocess.run(command, cwd=ROOT, input=json.dumps(described), text=True, check=True)
    kept = sum(path.lstat().st_blocks * 512 for path in CACHE.rglob("*")) / 1e9
    if kept > _KEEP_GB:
        say(f"{kept:.1f} GB of earlier builds: all layers are removed")
        buildah.run("rmi", "--all", "--force")
    say(f"image-test: all in order; up to {kept:.1f} GB are kept in {CACHE}")


if __name__ == "__main__":
    sys.exit(main())
