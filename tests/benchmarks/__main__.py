"""Run the benchmarks: ``python -m tests.benchmarks [name ...]``; without a name, all of them."""

from __future__ import annotations

import sys

from tests.benchmarks import (
    batched,
    checkpoints,
    coco,
    jpegs,
    latency,
    links,
    loading,
    masks,
    orders,
    reading,
    shuffles,
    validation,
)

BENCHMARKS = {
    "batched": batched.main,
    "coco": coco.main,
    "checkpoints": checkpoints.main,
    "jpegs": jpegs.main,
    "latency": latency.main,
    "links": links.main,
    "loading": loading.main,
    "masks": masks.main,
    "orders": orders.main,
    "reading": reading.main,
    "shuffles": shuffles.main,
    "validation": validation.main,
}


def main(names: list[str]) -> None:
    """Run the named benchmarks, or all."""
    unknown = sorted(set(names) - BENCHMARKS.keys())
    if unknown:
        raise SystemExit(f"names must be among {sorted(BENCHMARKS)}, got {unknown}.")
    for name in names or BENCHMARKS:
        print(f"\n== {name}")
        BENCHMARKS[name]()


if __name__ == "__main__":
    main(sys.argv[1:])
