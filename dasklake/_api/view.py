"""Methods of ``Lake`` and ``View`` that read, and views: some samples and tensors of a version."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeAlias, overload

import numpy as np
import numpy.typing as npt

from dasklake._api.copy_methods import CopyMethods
from dasklake._api.export_methods import ExportMethods
from dasklake._api.formatting import view_html, view_text
from dasklake._api.stats_methods import StatsMethods
from dasklake._api.torch_methods import TorchMethods
from dasklake._read.filter_columns import resolve_group
from dasklake._read.filters import FilterLike
from dasklake._read.reader import Reader
from dasklake._read.row_index import resolve_row, resolve_rows, resolve_selection
from dasklake._read.rows import PackedRows, Rows, numbers_at, pack_rows, unpack_rows
from dasklake._read.scan import rows_that_match
from dasklake._read.split import (
    HashRange,
    parse_fractions,
    parse_seed,
    rows_of_range,
    value_hashes,
)
from dasklake._read.tensor import Tensor
from dasklake._schema.argument_types import check_arguments
from dasklake._schema.lake_tensors import schema_of_some
from dasklake._schema.schema import Schema

__all__ = ["ReadMethods", "View"]


#: Consecutive samples, and the hashes of a part of them.
_Rule: TypeAlias = tuple[PackedRows, HashRange]


@check_arguments
class ReadMethods(CopyMethods, TorchMethods, ExportMethods, StatsMethods):
    """Read the samples of a lake or a view."""

    #: How the samples of a part can be computed again.
    _rule: _Rule | None = None

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, item: str) -> Tensor: ...

    @overload
    def __getitem__(self, item: int | np.integer[Any]) -> dict[str, Any]: ...

    @overload
    def __getitem__(
        self, item: slice | Sequence[int] | npt.NDArray[Any]
    ) -> list[dict[str, Any]]: ...

    def __getitem__(self, item: Any) -> Tensor | dict[str, Any] | list[dict[str, Any]]:
        if isinstance(item, str):
            self._columns([item])
            return self._tensor(item)
        rows, names = self._rows, self._names
        if isinstance(item, slice | list | tuple | np.ndarray):
            numbers = numbers_at(rows, resolve_rows(item, len(rows)))
            return list(self._reader.many(numbers, names))
        return self._reader.one(int(rows[resolve_row(item, len(rows))]), names)

    def __contains__(self, name: object) -> bool:
        """Return whether there is a tensor of this name."""
        return name in self._names

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self._reader.selected(self._rows, self._names)

    def _tensor(self, name: str) -> Tensor:
        return Tensor(self._reader, name)

    def select(self, rows: slice | Sequence[int] | npt.NDArray[Any]) -> View:
        """Return a view of some samples, without reading them.

        Parameters
        ----------
        rows : slice, sequence of int, or array
            The samples, as in ``lake[rows]``: a slice, numbers in any order, or a mask. A number may
            be repeated.

        Returns
        -------
        View
            The samples, in the order of ``rows``.

        Raises
        ------
        InvalidInputError
            ``rows`` is not a valid selection.
        IndexError
            A number of ``rows`` is out of range.

        Examples
        --------
        >>> import dasklake
        >>> lake = dasklake.empty("memory://select")
        >>> lake.create_tensor("x", dtype="int64", shape=())
        >>> lake.extend({"x": [10, 11, 12, 13]})
        >>> view = lake.select([3, 1])
        >>> view["x"][:].tolist()
        [13, 11]
        >>> view.select(slice(1)).to_dask_array("x").compute().tolist()
        [13]
        """
        self.flush()
        own = self._rows
        return View(self._reader, numbers_at(own, resolve_selection(rows, len(own))), self._names)

    def columns(self, names: Sequence[str]) -> View:
        """Return a view of some tensors.

        Parameters
        ----------
        names : sequence of str
            The tensors, in order.

        Returns
        -------
        View
            The same samples with these tensors only.

        Raises
        ------
        InvalidInputError
            ``names`` is not a list of strings.
        VersionNotFoundError
            There is no tensor of a name in ``names``.

        Examples
        --------
        >>> import dasklake
        >>> lake = dasklake.empty("memory://columns")
        >>> lake.create_tensor("x", dtype="int64", shape=())
        >>> lake.create_tensor("y", dtype="int64", shape=())
        >>> lake.append({"x": 1, "y": 2})
        >>> lake.columns(["y"])[0]
        {'y': np.int64(2)}
        """
        self.flush()
        chosen = list(dict.fromkeys(self._columns(names)))
        return View(self._reader, self._rows_of(chosen), chosen, self._rule)

    def where(self, expression: FilterLike) -> View:
        """Return a view of the samples that match a filter.

        Only the tensors that the filter names are read, several chunks at a time. Chunks whose
        statistics show that no sample matches are not opened.

        Parameters
        ----------
        expression : pyarrow.compute.Expression, or list of tuple
            An expression such as ``pc.field("label") == "cat"``, or comparisons as in Dask:
            ``[("label", "==", "cat"), ("score", ">", 0.5)]``, all of which must be true. A list of
            such lists gives alternatives. The operators are ``==`` (or ``=``), ``!=``, ``<``,
            ``<=``, ``>``, ``>=``, ``in``, ``not in``, ``is``, ``is not`` and ``contains``.

            A name is a tensor with one value for each sample, or a property of a tensor:
            ``"boxes.n_objects"``, ``"text.length"`` (characters), ``"image.height"``,
            ``"image.width"`` or ``"x.shape[0]"``. A tensor of exactly this name comes first. Classes
            are compared by name or index. ``("labels", "contains", "cat")`` finds samples with at
            least one such label.

            In an expression of pyarrow, a class that does not exist matches no sample, and only a
            list of comparisons refuses it.

            A comparison of no value is not true in an expression of pyarrow. In lists, as in Dask,
            ``!=`` and ``not in`` are also true for no value and NaN, and ``is None`` finds both.

        Returns
        -------
        View
            The samples, in the order of this lake or view.

        Raises
        ------
        InvalidInputError
            ``expression`` is not valid, a tensor does not have one value for each sample, a value
            has another type, or a class does not exist.
        VersionNotFoundError
            There is no tensor of a name in ``expression``.
        CorruptionError
            A chunk is damaged.

        Examples
        --------
        >>> import dasklake
        >>> import pyarrow.compute as pc
        >>> lake = dasklake.empty("memory://where")
        >>> lake.create_tensor("label", "class_label", class_names=["cat", "dog"])
        >>> lake.create_tensor("boxes", "bbox")
        >>> lake.extend({"label": [0, 1, 0], "boxes": [[[0, 0, 1, 1]], [], []]})
        >>> lake.where([("label", "==", "cat")]).rows
        array([0, 2])
        >>> lake.where([("boxes.n_objects", ">", 0)]).rows
        array([0])
        >>> lake.where(pc.field("label").isin(["dog"]) | (pc.field("boxes.n_objects") > 0)).rows
        array([0, 1])
        """
        self.flush()
        condition = self._condition(expression)
        return View(self._reader, rows_that_match(self._reader, condition, self._rows), self._names)

    def split(
        self, fractions: Mapping[str, float], *, seed: int = 0, by: str | None = None
    ) -> dict[str, View]:
        """Divide the samples into views, so that a sample never changes its part.

        The part of a sample depends on a hash of its key and the seed. The key is the run that wrote
        the sample, its partition and its position there. Appended samples, more checkpoints and
        resumed runs do not change it. The sizes of the parts are close to the fractions, not equal.

        Parameters
        ----------
        fractions : mapping of str to float
            Fraction of the samples in each part. The sum must be 1.
        seed : int, default 0
            Seed of the hash. Another seed gives other parts.
        by : str, optional
            Tensor with one value for each sample, or a property of a tensor as in :meth:`where`.
            Samples with equal values are in the same part; so are those without a value. The part
            depends on the value and the seed only.

        Returns
        -------
        dict of str to View
            The parts, each in the order of this lake or view. Every sample is in one of them.

        Raises
        ------
        InvalidInputError
            ``fractions`` are not positive numbers with the sum 1, ``seed`` is not an integer, or
            ``by`` does not have one value for each sample.
        VersionNotFoundError
            There is no tensor ``by``.

        Examples
        --------
        >>> import dasklake
        >>> lake = dasklake.empty("memory://split")
        >>> lake.create_tensor("x", dtype="int64", shape=())
        >>> lake.create_tensor("camera", "text")
        >>> lake.extend({"x": range(100), "camera": [f"c{i % 10}" for i in range(100)]})
        >>> parts = lake.split({"train": 0.8, "val": 0.2}, seed=1)
        >>> sum(map(len, parts.values()))
        100
        >>> parts = lake.split({"train": 0.8, "val": 0.2}, by="camera")
        >>> set(parts["train"]["camera"]) & set(parts["val"]["camera"])
        set()
        """
        self.flush()
        number = parse_seed(seed)
        parts = parse_fractions(fractions, number)
        hashes = None
        if by is not None:
            column = resolve_group(by, {name: self.schema[name] for name in self._names})
            hashes = value_hashes(self._reader, column, self._rows, number)
        views = {}
        for name, part in parts.items():
            rows = rows_of_range(self._reader, self._rows, part, hashes)
            ruled = by is None and isinstance(self._rows, range)
            rule = (pack_rows(self._rows), part) if ruled else None
            views[name] = View(self._reader, rows, self._names, rule)
        return views


class View(ReadMethods):
    """Some samples and tensors of one version of a lake.

    ``lake.select(rows)``, ``lake.columns(names)`` and other methods of a lake or a view return
    views. Everything that reads a lake also reads a view: indices, loops, :class:`Tensor`, Dask
    collections and copies. Sample ``i`` of a view is the one at its position ``i``. The index of a
    Dask DataFrame is the number of the sample in the lake, as if the frame of the lake had been
    filtered.

    A view never changes, even if the lake gets new versions. It is pickled as the version and the
    numbers of its samples: a range, a bitmap or an array, whichever is smallest. A part of
    :meth:`split` is pickled as its rule.

    Parameters
    ----------
    reader : Reader
        Reader of the version.
    rows : range or numpy.ndarray
        Numbers of the samples in the version, in the order in which they are read.
    names : sequence of str
        The tensors.
    rule : (PackedRows, HashRange), optional
        Samples, and the hashes by which ``rows`` are a part of them.

    Examples
    --------
    >>> import dasklake
    >>> lake = dasklake.empty("memory://view")
    >>> lake.create_tensor("x", dtype="int64", shape=())
    >>> lake.extend({"x": [10, 11, 12, 13]})
    >>> view = lake.select([0, 2])
    >>> len(view), view[1], view["x"][:].tolist()
    (2, {'x': np.int64(12)}, [10, 12])
    """

    def __init__(
        self, reader: Reader, rows: Rows, names: Sequence[str], rule: _Rule | None = None
    ) -> None:
        self._reader = reader
        self._numbers_of_samples = rows
        self._tensors = tuple(names)
        self._rule = rule

    def __reduce__(self) -> tuple[Any, ...]:
        if self._rule is not None:
            return _restore_part, (self._reader, *self._rule, self._tensors)
        return _restore, (self._reader, pack_rows(self._rows), self._tensors)

    @property
    def _rows(self) -> Rows:
        return self._numbers_of_samples

    @property
    def _names(self) -> list[str]:
        return list(self._tensors)

    def _rows_of(self, names: Sequence[str]) -> Rows:  # noqa: ARG002 # the same for all tensors
        return self._numbers_of_samples

    def _columns(self, columns: Any = None) -> list[str]:
        return self._reader.names(columns, among=self._tensors)

    def _tensor(self, name: str) -> Tensor:
        return Tensor(self._reader, name, self._rows)

    @cached_property
    def _schema(self) -> Schema:
        return schema_of_some({name: self._reader.schema[name] for name in self._tensors})

    @property
    def schema(self) -> Schema:
        """The tensors by name."""
        return self._schema

    @property
    def url(self) -> str:
        """Root URL of the lake, without secrets."""
        return self._reader.origin.store.url

    @property
    def version(self) -> int:
        """Number of the version."""
        return self._reader.origin.version

    @property
    def rows(self) -> npt.NDArray[np.int64]:
        """Numbers of the samples in the lake, in the order of the view."""
        return np.array(self._rows, np.int64)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, View):
            return NotImplemented
        own, theirs = self._reader.origin, other._reader.origin
        same = (own.store.url, own.id, self._tensors) == (
            theirs.store.url,
            theirs.id,
            other._tensors,
        )
        return same and np.array_equal(self._rows, other._rows)

    __hash__ = None  # type: ignore[assignment] # as large as its rows

    def __repr__(self) -> str:
        return view_text(self._facts, self.schema)

    def _repr_html_(self) -> str:
        return view_html(self._facts, self.schema)

    @property
    def _facts(self) -> tuple[str, int, int, int]:
        return self.url, self.version, len(self), self._reader.origin.samples


def _restore_part(
    reader: Reader, packed: PackedRows, part: HashRange, names: Sequence[str]
) -> View:
    rows = rows_of_range(reader, unpack_rows(packed), part)
    return View(reader, rows, names, (packed, part))


def _restore(reader: Reader, packed: PackedRows, names: Sequence[str]) -> View:
    return View(reader, unpack_rows(packed), names)
