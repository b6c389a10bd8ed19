"""Restore the index of a frame from the tensors that hold it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from dasklake._schema.schema import Schema, TensorSpec
from dasklake.exceptions import InvalidInputError


def index_tensors(schema: Schema, columns: Sequence[str] | None, index: Any) -> tuple[str, ...]:
    """Return the tensors that are the index of a frame, in the order of its levels.

    Parameters
    ----------
    schema : Schema
        Schema of the version.
    columns : sequence of str or None
        Tensors that the user requested as columns, or None for all.
    index : str, sequence of str, bool or None
        Names of tensors. None means the tensors with the role of an index, unless the user
        requested one of them as a column. False means none.

    Raises
    ------
    InvalidInputError
        ``index`` is not a valid choice, or its tensors do not have one value per sample.
    """
    stored = tuple(name for name, spec in schema.items() if spec.index)
    if index is None:
        return () if columns is not None and set(stored) & {*columns} else stored
    if isinstance(index, bool):
        return stored if index else ()
    names = (index,) if isinstance(index, str) else tuple(index) if _is_list(index) else (index,)
    for name in names:
        if not isinstance(name, str) or name not in schema:
            raise InvalidInputError(
                f"index must be tensors of the lake, got {name!r}. Use some of: {', '.join(schema)}."
            )
        if schema[name].shape != () or schema[name].sequence or schema[name].linked:
            raise InvalidInputError(
                f"index must be tensors with one value per sample, got {name!r} of shape "
                f"{schema[name].shape}. Choose another."
            )
    return names


def _is_list(value: object) -> bool:
    return isinstance(value, list | tuple)


def stored_index(
    columns: Mapping[str, pd.Series] | pd.DataFrame,
    schema: Mapping[str, TensorSpec],
    names: Sequence[str],
) -> pd.Index | None:
    """Return the index that the columns of some tensors hold, or None without tensors."""
    labels = [None if schema[name].index == "unnamed" else name for name in names]
    if len(names) > 1:
        return pd.MultiIndex.from_arrays([columns[name] for name in names], names=labels)
    return pd.Index(columns[names[0]], name=labels[0]) if names else None
