"""Write any Dask collection as a versioned lake of samples on object storage, and read it back.

Writes are committed while they run and resume after a crash. The names listed in ``__all__`` are
public, together with the modules ``creds``, ``exceptions``, ``sources``, ``testing`` and ``torch``.
Everything else is private.

Examples
--------
>>> import dask.array as da
>>> import dasklake
>>> report = dasklake.to_lake({"x": da.arange(6, chunks=3)}, "memory://quickstart")
>>> lake = dasklake.open("memory://quickstart")
>>> len(lake)
6
>>> lake["x"][2:5].tolist()
[2, 3, 4]
"""

from __future__ import annotations

import inspect
import typing
from importlib import metadata

from dasklake import masks
from dasklake._api import configuration, dask_methods, other_words
from dasklake._api.compute import Pipeline, compose, compute
from dasklake._api.files import read
from dasklake._api.lake import Lake, empty, load, open, read_lake
from dasklake._api.sample_in_out import SampleIn, SampleOut
from dasklake._api.view import View
from dasklake._api.write import LinkPolicy, WriteOptions, WriteReport, to_lake
from dasklake._media.file import File
from dasklake._read.batches import Batches
from dasklake._read.tensor import Tensor
from dasklake._read.tensor_dtype import TensorDtype
from dasklake._run.preview import Preview
from dasklake._schema.schema import Schema, TensorSpec
from dasklake._schema.values import Link, Samples, link

__all__ = [
    "Batches",
    "File",
    "Lake",
    "Link",
    "LinkPolicy",
    "Pipeline",
    "Preview",
    "SampleIn",
    "SampleOut",
    "Samples",
    "Schema",
    "Tensor",
    "TensorDtype",
    "TensorSpec",
    "View",
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

__version__ = metadata.version("dasklake")


def _set_module() -> None:
    """Show public names under ``dasklake``, not under the private modules that define them."""
    for name in __all__:
        value = globals()[name]
        if inspect.isclass(value):
            # typing.get_type_hints would look for the names in annotations here.
            value.__annotations__ = inspect.get_annotations(value, eval_str=True)
        if not inspect.ismodule(value):
            value.__module__ = __name__


if not typing.TYPE_CHECKING:  # type checkers must find wrong names, too

    def __getattr__(name: str) -> typing.NoReturn:
        if name.startswith("_"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        raise other_words.unknown_function(name, __all__)


_set_module()
configuration.add_defaults()
dask_methods.bind_methods()
