r"""Write COCO as a lake, from one bucket into another, with checkpoints.

Start it again after a crash, and it continues from the last checkpoint:

    python examples/coco_to_lake.py s3://source/instances_train2017.json s3://source/train2017 \
        s3://lakes/coco-train2017 --scheduler tcp://scheduler:8786

Credentials and endpoints come from the environment of each process, as for other S3 tools.
"""

from __future__ import annotations

import argparse

import dask.bag as db
from dask.delayed import delayed
from distributed import Client

import dasklake
from dasklake.sources import coco


def main() -> None:
    """Parse the arguments, write the lake, print its log."""
    parser = argparse.ArgumentParser(description="Write a COCO data set as a lake.")
    parser.add_argument("annotations", help="URL of the annotation file")
    parser.add_argument("images", help="URL of the folder of images")
    parser.add_argument("lake", help="URL of the lake")
    parser.add_argument(
        "--scheduler", help="address of a Dask scheduler; by default workers start on this machine"
    )
    parser.add_argument("--npartitions", type=int, default=480)
    parser.add_argument("--checkpoint-every", type=int, default=25_000, help="samples")
    args = parser.parse_args()

    # The client reads the annotation file once, and each worker fetches the index once.
    index = coco.read_index(args.annotations)
    image_ids = index.image_ids.tolist()

    options = (
        {} if args.scheduler else {"threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    )
    with Client(args.scheduler, **options):
        report = db.from_sequence(image_ids, npartitions=args.npartitions).to_lake(
            args.lake,
            schema=coco.schema(index),
            transform=coco.sample,
            transform_kwargs={"coco": delayed(index, traverse=False), "images": args.images},
            checkpoint_every=args.checkpoint_every,
            mode="resume",
            run="coco",
        )
    print(report)
    print(dasklake.open(args.lake).log())


if __name__ == "__main__":
    main()
