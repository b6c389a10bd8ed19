"""Labels of chunks with class names of their own: which index of the version each number means."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dasklake._format.columns import read_class_names
from dasklake._schema.schema import TensorSpec

__all__ = ["label_indices"]


def label_indices(field: pa.Field, spec: TensorSpec) -> npt.NDArray[np.uint32] | None:
    """Return the index of each of a chunk's own class names; None where it stores indices.

    Parameters
    ----------
    field : pyarrow.Field
        The tensor's column in the chunk.
    spec : TensorSpec
        What the tensor holds in the version that is read.

    Raises
    ------
    KeyError, ValueError
        The chunk has a name that the version has not.
    """
    names = read_class_names(field) if spec.discover else None
    if names is None:
        return None
    index = _index(spec.class_names)
    return np.array([index[name] for name in names], np.uint32)


@lru_cache(maxsize=16)
def _index(names: tuple[str, ...]) -> Mapping[str, int]:
    return {name: place for place, name in enumerate(names)}
