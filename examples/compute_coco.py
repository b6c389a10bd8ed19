r"""Write COCO as a lake with ``@dasklake.compute``, a function that is called for each image.

The first call creates the lake. With ``--resume`` the job continues from its last checkpoint:

    python examples/compute_coco.py s3://source/instances_train2017.json s3://source/train2017 \
        s3://lakes/coco-train2017 --num-workers 8 --checkpoint-interval 25000

Credentials and endpoints come from the environment of each process, as for other S3 tools. Those of
the images are the value of ``dasklake.creds.coco`` in Dask's configuration.
"""

from __future__ import annotations

import argparse
from typing import Any

import fsspec
import numpy as np
from pycocotools.coco import COCO

import dasklake


@dasklake.compute
def coco_to_lake(img_id: int, sample_out: dasklake.SampleOut, coco: Any, images: str) -> None:
    """Append the sample of one image."""
    ann_ids = coco.getAnnIds(img_id)
    anns = coco.loadAnns(ann_ids)
    img_coco = coco.loadImgs(img_id)[0]
    cat_ids = sorted(coco.getCatIds())

    categories = np.zeros(len(anns), "uint32")
    boxes = np.zeros((len(anns), 4), "float32")
    masks = np.zeros((img_coco["height"], img_coco["width"], len(anns)), "bool")
    for i, ann in enumerate(anns):
        categories[i] = cat_ids.index(ann["category_id"])
        boxes[i] = ann["bbox"]
        masks[:, :, i] = coco.annToMask(ann)

    sample_out.append(
        {
            "images": dasklake.link(f"{images}/{img_coco['file_name']}", creds_key="coco"),
            "categories": categories,
            "boxes": boxes,
            "masks": masks,
        }
    )


def main() -> None:
    """Parse the arguments, write the lake, print its log."""
    parser = argparse.ArgumentParser(description="Write a COCO data set as a lake.")
    parser.add_argument("annotations", help="URL of the annotation file")
    parser.add_argument("images", help="URL of the folder of images")
    parser.add_argument("lake", help="URL of the lake")
    parser.add_argument(
        "--num-workers", type=int, default=0, help="processes to start on this machine"
    )
    parser.add_argument("--checkpoint-interval", type=int, default=25_000, help="images")
    parser.add_argument("--resume", action="store_true", help="continue the existing lake")
    args = parser.parse_args()

    coco = COCO(fsspec.open_local(f"simplecache::{args.annotations}"))
    img_ids = sorted(coco.getImgIds())
    class_names = [cat["name"] for cat in coco.loadCats(sorted(coco.getCatIds()))]

    if args.resume:
        lake = dasklake.load(args.lake)
    else:
        lake = dasklake.empty(args.lake, overwrite=True)
        lake.add_creds_key("coco", managed=True)
        with lake:
            lake.create_tensor(
                "images",
                htype="link[image]",
                sample_compression="jpg",
                verify=False,
                create_shape_tensor=False,
                create_sample_info_tensor=False,
            )
            lake.create_tensor("categories", htype="class_label", class_names=class_names)
            lake.create_tensor("boxes", htype="bbox", coords={"type": "pixel", "mode": "LTWH"})
            lake.create_tensor("masks", htype="binary_mask", sample_compression="lz4")

    coco_to_lake(coco, args.images).eval(
        img_ids,
        lake,
        num_workers=args.num_workers,
        checkpoint_interval=args.checkpoint_interval,
        run="coco",
    )
    lake.summary()
    print(lake.log())


if __name__ == "__main__":
    main()
