"""Any Dask collection as a versioned lake of samples: committed while written, resumed, read back.

The public names; everything else is an implementation detail.
"""

from __future__ import annotations

from dasklake import _methods
from dasklake._model.schema import Schema, TensorSpec
from dasklake._model.values import Link, link
from dasklake.lake import Lake, Tensor, open, read_lake  # dasklake.open is the word for it
from dasklake.write import WriteOptions, WriteReport, to_lake

__all__ = [
    "Lake",
    "Link",
    "Schema",
    "Tensor",
    "TensorSpec",
    "WriteOptions",
    "WriteReport",
    "link",
    "open",
    "read_lake",
    "to_lake",
]

_methods.bind_methods()
