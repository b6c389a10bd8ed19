"""Write a Dask DataFrame as a lake, and read it back with equal dtypes.

Run it with the URL of the lake: python examples/02_dataframe_to_lake.py /tmp/weather
"""

from __future__ import annotations

import sys

import dask.dataframe as dd
import pandas as pd

import dasklake


def main(url: str) -> None:
    """Write a table whose schema is inferred; read two of its columns."""
    table = pd.DataFrame(
        {
            "when": pd.date_range("2026-01-01", periods=1_000, freq="h", tz="UTC"),
            "station": pd.Categorical(["north", "south"] * 500),
            "celsius": [round(20 - 0.01 * hour, 2) for hour in range(1_000)],
            "rain": pd.array([None, True, False, False] * 250, dtype="boolean"),
        }
    )
    dd.from_pandas(table, npartitions=4).to_lake(url, mode="overwrite")

    lake = dasklake.open(url)
    print(lake.schema)
    back = dasklake.read_lake(url, columns=["station", "celsius"]).compute()
    print(back.groupby("station", observed=True)["celsius"].mean())


if __name__ == "__main__":
    main(sys.argv[1])
