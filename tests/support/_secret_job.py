"""A job with two credentials keys: ``python -m tests.support._secret_job ARGUMENTS`` (JSON).

Starts a cluster, writes links, and prints everything that a run shows: reports, logs, events,
task keys, states and tracebacks.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import dask.bag as db
from distributed import Client, LocalCluster

import dasklake

SCHEMA = {
    "image": dasklake.TensorSpec("link[image]", compression="jpeg"),
    "n": dasklake.TensorSpec(dtype="int64", shape=()),
}


def sample(n: int, *, pictures: str, gate: str, last: int) -> dict[str, Any]:
    """Make a sample; samples of the second half wait until the gate is open."""
    while n >= last // 2 and not Path(gate).exists():
        time.sleep(0.05)
    name = "denied" if n > last else f"{n % 10}"
    return {"image": dasklake.link(f"{pictures}/{name}.jpg", creds_key="pictures"), "n": n}


def show(*values: object) -> None:
    """Print one value per line."""
    sys.stdout.write("".join(f"{value}\n" for value in values))


def main(*, lake: str, pictures: str, gate: str, items: int, dump: str) -> None:
    """Write one lake, then one with a link to which access is denied."""
    for name in ("dasklake", "distributed"):
        logging.getLogger(name).setLevel(logging.DEBUG)
    logging.basicConfig()
    kwargs = {"pictures": pictures, "gate": gate, "last": items}
    write: dict[str, Any] = {"schema": SCHEMA, "transform": sample, "storage_options": "lake"}
    local = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0")
    with local as cluster, Client(cluster) as client:
        bag = db.from_sequence(range(items), npartitions=10)
        report = dasklake.to_lake(
            bag, lake, checkpoint_every=items // 5, transform_kwargs=kwargs, **write
        )
        opened = dasklake.open(lake, storage_options="lake")
        show(report, opened, repr(opened), opened.log(entries=True), opened.schema, opened[0])
        show(opened.check_links(), opened[0]["image"].shape, opened[1]["image"].numpy().shape)
        client.dump_cluster_state(dump)
        bag = db.from_sequence([items + 1], npartitions=1)
        try:
            dasklake.to_lake(
                bag,
                f"{lake}-other",
                on_error="skip",
                transform_kwargs=kwargs,
                options=dasklake.WriteOptions(retries=1),
                **write,
            )
        except dasklake.exceptions.LakeError:
            traceback.print_exc()
        show(client.get_events(), client.get_scheduler_logs(), client.get_worker_logs())
        client.dump_cluster_state(f"{dump}-2")
    show(f"samples: {report.samples}")


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
