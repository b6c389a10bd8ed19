"""Any Dask collection as a versioned lake of samples: committed while written, resumed, read back.

The public names; everything else is an implementation detail.
"""

from __future__ import annotations

from dasklake import _methods, masks
from dasklake._model.samples import Samples
from dasklake._model.schema import Schema, TensorSpec
from dasklake._model.values import Link, link
from dasklake._write.preview import Preview
from dasklake.compute import Pipeline, SampleIn, SampleOut, compose, compute
from dasklake.files import File, read
from dasklake.lake import Lake, Tensor, empty, load, open, read_lake
from dasklake.write import WriteOptions, WriteReport, to_lake

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

_methods.bind_methods()
