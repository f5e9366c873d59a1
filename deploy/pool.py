"""Write the component of a pool's workers: `make pool`, for another pool `make pool POOL=io`.

It is the base's Deployment with another name and the pool in HEADSTART_POOLS. The base's own
workers then serve the default pool alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from headstart_service.domain import DEFAULT_POOL, pool_violation

from .keda import COMPONENTS, Scaling, of_pool

BASE: Final = COMPONENTS.parent / "base" / "worker.yaml"
_MADE: Final = "# Made by `make pool`.\n"
_POD: Final = "/spec/template/spec/containers/0"
_COMPONENT: Final = "app.kubernetes.io/component"
_HEADER: Final = {
    "apiVersion": "kustomize.config.k8s.io/v1alpha1",
    "kind": "Component",
}


def deployment(pool: str) -> dict[str, Any]:
    """Return the Deployment of the pool's workers."""
    found: dict[str, Any] = yaml.safe_load(BASE.read_text())
    for labels in _labels(found):
        if labels.get(_COMPONENT) == "worker":
            labels[_COMPONENT] = f"worker-{pool}"
    found["metadata"]["name"] = f"headstart-worker-{pool}"
    [container] = found["spec"]["template"]["spec"]["containers"]
    container["env"].append({"name": "HEADSTART_POOLS", "value": pool})
    return found


def _labels(node: Any) -> Iterator[dict[str, Any]]:
    """Yield every mapping below a node."""
    if isinstance(node, dict):
        yield node
        for each in node.values():
            yield from _labels(each)
    elif isinstance(node, list):
        for each in node:
            yield from _labels(each)


def files(pool: str) -> dict[Path, str]:
    """Return the files of the pool's two components."""
    workers, scaled = COMPONENTS / f"pool-{pool}", COMPONENTS / f"pool-{pool}-keda"
    base_images = yaml.safe_load((BASE.parent / "kustomization.yaml").read_text())["images"]
    images = [each for each in base_images if each["name"] == "headstart-worker"]
    own = {"name": "HEADSTART_POOLS", "value": DEFAULT_POOL}
    base = {
        "target": {"kind": "Deployment", "name": "headstart-worker"},
        "patch": _text([{"op": "add", "path": f"{_POD}/env/-", "value": own}]),
    }
    scaling = [
        {
            "target": {"kind": "Deployment", "name": f"headstart-worker-{pool}"},
            "patch": _text([{"op": "remove", "path": "/spec/replicas"}]),
        },
        {"target": {"kind": "ScaledObject", "name": "headstart-worker"}, "path": "others.yaml"},
    ]
    return {
        workers / "worker.yaml": _MADE + _text(deployment(pool)),
        workers / "kustomization.yaml": _MADE
        + "# Workers of one pool. Those of the base serve the default pool alone.\n"
        + _text({**_HEADER, "resources": ["worker.yaml"], "images": images, "patches": [base]}),
        scaled / "kustomization.yaml": _MADE
        + f"# After components/keda and components/pool-{pool}: each is scaled by its own runs.\n"
        + _text({**_HEADER, "resources": ["scaledobject.yaml"], "patches": scaling}),
        scaled / "scaledobject.yaml": of_pool(pool).text(),
        scaled / "others.yaml": Scaling(others=(pool,)).text(),
    }


def _text(found: Any) -> str:
    return yaml.safe_dump(found, sort_keys=False, width=110)


def main() -> None:
    """Write the components of one pool."""
    parser = argparse.ArgumentParser(prog="python -m deploy.pool", description=__doc__)
    parser.add_argument("pool", nargs="?", default="gpu", help="its name")
    pool = parser.parse_args().pool
    if rule := pool_violation(pool):
        parser.error(f"pool {pool!r}: {rule}")
    for path, text in files(pool).items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        print(f"wrote {path.relative_to(COMPONENTS.parents[2])}")


if __name__ == "__main__":
    main()
