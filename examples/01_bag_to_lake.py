"""Write a Dask Bag as a lake: each item becomes one sample, a dict of tensors.

Run it with the URL of the lake: python examples/01_bag_to_lake.py /tmp/numbers
"""

from __future__ import annotations

import sys
from typing import Any

import dask.bag as db
import numpy as np

import dasklake


def sample(number: int) -> dict[str, Any]:
    """Make one sample, inside the task that writes it."""
    return {
        "number": number,
        "parity": number % 2,
        "divisors": np.array([n for n in range(1, number + 1) if number % n == 0]),
    }


def main(url: str) -> None:
    """Write a hundred samples, then read some of them."""
    schema = {
        "number": dasklake.TensorSpec(dtype="int64", shape=()),
        "parity": dasklake.TensorSpec("class_label", shape=(), class_names=("even", "odd")),
        "divisors": dasklake.TensorSpec(dtype="int64", shape=(None,)),
    }
    bag = db.from_sequence(range(100), npartitions=4)
    report = bag.to_lake(url, schema=schema, transform=sample, mode="overwrite")
    print(f"{report.samples} samples in {report.partitions} partitions")

    lake = dasklake.open(url)
    print(lake)
    print("sample 12:", lake[12])
    print("divisors of 28:", lake["divisors"][28])


if __name__ == "__main__":
    main(sys.argv[1])
