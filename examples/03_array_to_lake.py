"""Write Dask Arrays as a lake: the first axis is samples.

Run it with the URL of the lake: python examples/03_array_to_lake.py /tmp/vectors
"""

from __future__ import annotations

import sys

import dask.array as da

import dasklake


def main(url: str) -> None:
    """Write vectors and their norms as two tensors; compute with the stored values."""
    vectors = da.random.default_rng(0).random((1_000, 16), chunks=(250, 16))
    norms = (vectors**2).sum(axis=1) ** 0.5
    dasklake.to_lake({"vector": vectors, "norm": norms}, url, mode="overwrite")

    lake = dasklake.open(url)
    stored = lake.to_dask_array("vector")
    print(f"{len(lake)} samples, {stored.shape} {stored.dtype}")
    print("mean:", stored.mean().compute().round(3))
    error = stored**2 @ da.ones(16) - lake.to_dask_array("norm") ** 2
    print("norms agree:", bool((abs(error) < 1e-9).all().compute()))


if __name__ == "__main__":
    main(sys.argv[1])
