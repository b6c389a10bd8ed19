"""Any Dask collection as a versioned lake of samples: committed while written, resumed, read back.

The public names; everything else is an implementation detail.
"""

from __future__ import annotations

from dasklake import masks
from dasklake._api import dask_methods
from dasklake._api.compute import Pipeline, SampleIn, SampleOut, compose, compute
from dasklake._api.files import File, read
from dasklake._api.lake import Lake, Tensor, empty, load, open, read_lake
from dasklake._api.write import WriteOptions, WriteReport, to_lake
from dasklake._run.preview import Preview
from dasklake._schema.samples import Samples
from dasklake._schema.schema import Schema, TensorSpec
from dasklake._schema.values import Link, link

__all__ = [
    "File",
    "Lake",
    "Link",
    "Pipeline",
    "Preview",
    "SampleIn",
    "SampleOut",
    "Samples",
    "Schema",
    "Tensor",
    "TensorSpec",
    "WriteOptions",
    "WriteReport",
    "compose",
    "compute",
    "empty",
    "link",
    "load",
    "masks",
    "open",
    "read",
    "read_lake",
    "to_lake",
]

dask_methods.bind_methods()
