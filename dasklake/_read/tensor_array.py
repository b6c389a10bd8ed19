"""The pandas extension type of stored values, which are decoded when a value is asked for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from numbers import Integral
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from pandas.api.extensions import ExtensionArray
from pandas.api.indexers import check_array_indexer

from dasklake._codecs.codec import Codec
from dasklake._codecs.sample import StoredColumn, StoredValue
from dasklake._codecs.transfer import encode_value
from dasklake._links.limits import LinkLimits
from dasklake._read import stored_column as stored
from dasklake._read.pandas_columns import series_of
from dasklake._read.stored_column import Parts
from dasklake._read.tensor_dtype import TensorDtype, arrow_column
from dasklake._read.tensor_source import TensorSource
from dasklake._schema.schema import TensorSpec
from dasklake.exceptions import InvalidInputError

__all__ = ["TensorArray"]

#: The object that pandas uses for missing values.
_NAN = np.nan

#: Rows at each end that the repr of an array shows.
_SHOWN = 5

#: Module of pandas that formats the values of frames, and the one that concatenates frames. Before
#: pandas 3, the latter accesses the first value of a column to find out if it is missing.
_FORMATTER, _CONCAT = "pandas.io.formats.format", "pandas.core.internals.concat"


class TensorArray(ExtensionArray, StoredColumn):  # type: ignore[misc] # pandas has no types
    """Values of a column of :class:`TensorDtype`, as they are stored.

    Parameters
    ----------
    parts : tuple of (pyarrow.Array, pyarrow.Array or None)
        The stored values and their shapes, in one or several parts.
    dtype : TensorDtype
        The dtype.
    limits : LinkLimits, optional
        Limits for reading the targets of links.

    Attributes
    ----------
    parts, limits : object
        The parameters.
    """

    #: Whether it is a view that must not be changed, in younger releases of pandas.
    _readonly = False

    #: It can be changed, so it has no hash.
    __hash__ = None  # type: ignore[assignment] # as for a list

    def __init__(self, parts: Parts, dtype: TensorDtype, limits: LinkLimits | None = None) -> None:
        self.parts = parts
        self._dtype = dtype
        self.limits = limits

    # ------------------------------------------------------------------ construction

    @classmethod
    def _from_sequence(cls, scalars: Any, *, dtype: Any = None, copy: bool = False) -> TensorArray:
        del copy  # values are always encoded
        if dtype is None:
            dtype = getattr(scalars, "dtype", None)
        dtype = pd.api.types.pandas_dtype(dtype) if isinstance(dtype, str) else dtype
        if not isinstance(dtype, TensorDtype):
            raise InvalidInputError(
                "A column of tensors needs a dtype. Give dtype=dasklake.TensorDtype(spec)."
            )
        column = getattr(scalars, "array", scalars)
        if isinstance(column, TensorArray):
            if column.dtype == dtype:
                return column.copy()
            scalars = column.stored()
        values = [_encoded(value, dtype.codec) for value in scalars]
        return cls((stored.encoded_part(values, dtype.spec),), dtype)

    @classmethod
    def of(cls, values: Any, dtype: TensorDtype) -> TensorArray:
        """Encode values, and None for missing ones."""
        return cls._from_sequence(values, dtype=dtype)

    @classmethod
    def _concat_same_type(cls, to_concat: Sequence[TensorArray]) -> TensorArray:
        first = to_concat[0]
        parts = tuple(part for array in to_concat for part in array.parts)
        return cls(parts, first.dtype, first.limits)

    def _with(self, parts: Parts) -> Self:
        return type(self)(parts, self._dtype, self.limits)

    def copy(self) -> Self:
        """Return an array of the same values, which are immutable and therefore shared."""
        return self._with(self.parts)

    def view(self, dtype: Any = None) -> Any:
        """Return an array of the same values."""
        if dtype is not None:
            raise NotImplementedError(dtype)
        return self[:]

    def __reduce__(self) -> tuple[Any, ...]:
        part = stored.compact(stored.joined(self.parts, self._dtype.spec))
        return TensorArray, ((part,), self._dtype, self.limits)

    # ------------------------------------------------------------------ properties

    @property
    def dtype(self) -> TensorDtype:
        """Type of the values."""
        return self._dtype

    @property
    def nbytes(self) -> int:
        """Number of stored bytes of the values, without those of other rows."""
        return stored.size_of(self.parts)

    def __len__(self) -> int:
        return sum(len(column) for column, _ in self.parts)

    def isna(self) -> npt.NDArray[np.bool_]:
        """Return a mask of the missing values."""
        return stored.missing_rows(self.parts)

    def equals(self, other: object) -> bool:
        """Return whether two arrays have the same dtype and the same stored values."""
        if not isinstance(other, TensorArray) or self.dtype != other.dtype:
            return False
        return len(self) == len(other) and bool((self.digests() == other.digests()).all())

    # ------------------------------------------------------------------ selection

    def __getitem__(self, item: Any) -> Any:
        item = _indexer(self, item)
        if isinstance(item, Integral):
            row = int(item) + (len(self) if item < 0 else 0)
            if not 0 <= row < len(self):
                raise IndexError(f"index {item} is out of bounds for axis 0 with size {len(self)}")
            (value,) = stored.stored_values(self._sliced(row, row + 1), self._dtype.spec)
            if value is None:
                return pd.NA
            caller = sys._getframe(1)  # noqa: SLF001 # the only way to know it
            if caller.f_globals.get("__name__") == _CONCAT:
                return StoredValue(self._source, "", value, row)  # only its being there matters
            return self._source.decode("", value, row)
        if isinstance(item, slice):
            start, stop, step = item.indices(len(self))
            if step == 1:
                result = self._with(self._sliced(start, max(start, stop)))
            else:
                result = self._taken(np.arange(start, stop, step))
            result._readonly = self._readonly  # noqa: SLF001 # an array of this class
            return result
        rows = np.flatnonzero(item) if item.dtype == bool else item
        return self.take(rows)

    def __iter__(self) -> Iterator[Any]:
        decode = self._source.decode
        for row, value in enumerate(stored.stored_values(self.parts, self._dtype.spec)):
            yield pd.NA if value is None else decode("", value, row)

    def stored(self) -> Iterator[StoredValue | None]:
        """Yield each value as it is stored, or None for a missing one."""
        source = self._source
        for row, value in enumerate(stored.stored_values(self.parts, self._dtype.spec)):
            yield None if value is None else StoredValue(source, "", value, row)

    def take(
        self, indices: Any, *, allow_fill: bool = False, fill_value: Any = None, axis: int = 0
    ) -> Self:
        """Return copies of some rows. With ``allow_fill``, -1 stands for ``fill_value``."""
        del axis
        rows = np.asarray(indices, np.intp)
        count = len(self)
        if not allow_fill:
            if rows.size and not count:
                raise IndexError("cannot do a non-empty take from an empty axes.")
            wrapped = np.where(rows < 0, rows + count, rows)
            if ((wrapped < 0) | (wrapped >= count)).any():
                raise IndexError("out of bounds value in 'indices'.")
            return self._taken(wrapped)
        if (rows < -1).any():
            raise ValueError("indices must be -1 or at least 0.")
        if (rows >= count).any():
            raise IndexError("out of bounds value in 'indices'.")
        if _is_missing(fill_value) or not (rows < 0).any():
            return self._taken(rows)
        return self._with_values(self._encoded([fill_value]), np.where(rows < 0, count, rows))

    def _taken(self, rows: npt.NDArray[np.intp]) -> Self:
        if not len(rows):
            return self._with(())
        return self._with(stored.take_rows(self.parts, rows, self._dtype.spec))

    def _with_values(self, values: TensorArray, rows: npt.NDArray[np.intp]) -> Self:
        """Return some rows of this array and of values that follow it."""
        parts = stored.take_rows((*self.parts, *values.parts), rows, self._dtype.spec)
        return self._with(parts)

    def _sliced(self, start: int, stop: int) -> Parts:
        return stored.slice_rows(self.parts, start, stop)

    def __setitem__(self, key: Any, value: Any) -> None:
        if self._readonly:
            raise ValueError("Cannot modify read-only array")
        key = _indexer(self, key)
        count = len(self)
        rows = np.arange(count)[key]
        single = rows.ndim == 0
        values = self._encoded([value] if single or not _is_list(value, self._dtype) else value)
        rows = np.atleast_1d(rows)
        if len(values) not in (1, len(rows)):
            raise ValueError(
                f"cannot set {len(rows)} values from a sequence of length {len(values)}"
            )
        order = np.arange(count)
        order[rows] = count + (np.arange(len(rows)) if len(values) > 1 else 0)
        if len(rows):
            self.parts = self._with_values(values, order).parts

    def _encoded(self, values: Any) -> TensorArray:
        return self._from_sequence(values, dtype=self._dtype)

    # ------------------------------------------------------------------ values

    @property
    def _source(self) -> TensorSource:
        return TensorSource(self._dtype, self.limits)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:  # noqa: FBT001 # numpy's protocol
        if copy is False:
            raise ValueError("Unable to avoid copy while creating an array as requested.")
        column = np.empty(len(self), object)
        column[:] = self._descriptions() if _is_formatted() else list(self)
        return column if dtype is None else column.astype(dtype, copy=False)

    def astype(self, dtype: Any, copy: bool = True) -> Any:  # noqa: FBT001, FBT002 # as pandas has it
        """Convert the values.

        An Arrow type gets what frames with ``tensors="arrow"`` have, and strings the text of JSON
        and the URLs of links. Another :class:`TensorDtype` gets the stored bytes if it allows that.
        Everything else gets decoded values.
        """
        dtype = pd.api.types.pandas_dtype(dtype)
        if isinstance(dtype, TensorDtype):
            same = dtype == self._dtype
            return (
                (self.copy() if copy else self) if same else self._from_sequence(self, dtype=dtype)
            )
        text = isinstance(dtype, pd.StringDtype) and _is_text(self._dtype.spec)
        if text or isinstance(dtype, pd.ArrowDtype):
            return self._plain().astype(dtype)
        return super().astype(dtype, copy=copy)

    def _plain(self) -> Any:
        """Return a column of pandas or Arrow with the values."""
        spec = self._dtype.spec
        return series_of(self.parts or (stored.joined((), spec),), spec).array

    def __arrow_array__(self, type: Any = None) -> pa.Array:  # noqa: A002 # Arrow's protocol
        spec = self._dtype.spec
        column = arrow_column(stored.joined(self.parts, spec), spec)
        if type is None or type == column.type:
            return column
        # Arrow asks for the storage of an extension type to make the array itself.
        is_storage = type == column.type.storage_type
        return column.storage if is_storage else pa.array(self._plain(), type)

    def map(self, mapper: Any, na_action: str | None = None) -> Any:
        """Return the results of a function of each value, decoding one value at a time."""
        if not callable(mapper):
            return super().map(mapper, na_action=na_action)
        source = self._source

        def apply(value: StoredValue | None) -> Any:
            if value is None:
                return pd.NA if na_action == "ignore" else mapper(pd.NA)
            return mapper(source.decode("", value.stored, value.sample))

        column = np.empty(len(self), object)
        column[:] = list(self.stored())
        result = pd.Series(column, dtype=object).map(apply).array
        return result.to_numpy(object if result.dtype.kind == "O" else None)

    # ------------------------------------------------------------------ comparison

    def digests(self) -> npt.NDArray[np.object_]:
        """Return a digest of each stored value, or None for a missing one."""
        return stored.digests(self.parts, self._dtype.spec)

    def __eq__(self, other: object) -> Any:
        if isinstance(other, pd.Series | pd.Index | pd.DataFrame):
            return NotImplemented  # they call this method with their array
        raise _not_defined("compared with ==", "Use equals() to compare what is stored")

    __ne__ = __eq__

    def __contains__(self, item: object) -> bool:
        if _is_missing(item):
            return bool(self.isna().any())
        raise _not_defined("searched", "Use isna(), or map() with a condition")

    def argsort(self, **options: Any) -> Any:
        """Raise an error, because the values have no order."""
        del options
        raise _not_defined("sorted", "Sort by a number that map() returns; group with sort=False")

    def factorize(self, use_na_sentinel: bool = True) -> tuple[Any, Self]:  # noqa: FBT001, FBT002 # as pandas has it
        """Give each value a number; values that are stored with the same bytes have the same."""
        codes, unique = pd.factorize(self.digests(), use_na_sentinel=use_na_sentinel)
        first = np.zeros(len(unique), np.intp)
        rows = np.flatnonzero(codes >= 0)[::-1]
        first[codes[rows]] = rows
        return codes, self.take(first)

    def unique(self) -> Self:
        """Return the first of the values that are stored with the same bytes."""
        return self.factorize(use_na_sentinel=False)[1]

    def duplicated(self, keep: Any = "first") -> npt.NDArray[np.bool_]:
        """Return a mask of the values that are stored with the same bytes as another."""
        repeated: pd.Series = pd.Series(self.digests(), dtype=object).duplicated(keep)
        return np.asarray(repeated)

    def value_counts(self, dropna: bool = True) -> pd.Series:  # noqa: FBT001, FBT002 # as pandas has it
        """Count the values that are stored with the same bytes."""
        codes, unique = self.factorize(use_na_sentinel=dropna)
        counts = np.bincount(codes[codes >= 0], minlength=len(unique))
        return pd.Series(counts, pd.Index(unique, dtype=self._dtype), "int64", "count")

    def _values_for_factorize(self) -> tuple[npt.NDArray[Any], Any]:
        return self.digests(), None

    def _hash_pandas_object(self, **options: Any) -> npt.NDArray[np.uint64]:
        del options  # the digests of equal values are equal in every process
        data = b"".join(digest[:8] if digest else bytes(8) for digest in self.digests())
        return np.frombuffer(data, "<u8").astype(np.uint64)

    # ------------------------------------------------------------------ display

    def _descriptions(self) -> list[str]:
        return stored.descriptions(self.parts, self._dtype.spec)

    def _formatter(self, boxed: bool = False) -> Callable[[Any], str]:  # noqa: FBT001, FBT002 # as pandas has it
        del boxed
        return str

    def __repr__(self) -> str:
        count = len(self)
        if count <= 2 * _SHOWN:
            rows = self._descriptions()
        else:
            ends = (self._sliced(0, _SHOWN), self._sliced(count - _SHOWN, count))
            first, last = (stored.descriptions(parts, self._dtype.spec) for parts in ends)
            rows = [*first, "...", *last]
        values = ", ".join(rows)
        return f"<TensorArray>\n[{values}]\nLength: {count}, dtype: {self._dtype}"


def _is_missing(value: object) -> bool:
    return value is None or value is pd.NA or value is pd.NaT or value is _NAN


def _encoded(value: Any, codec: Codec) -> Any:
    """Encode a value; None for a missing one."""
    spec = codec.spec
    if value is None or value is pd.NA:
        return None
    numbers = spec.shape == () and spec.numpy_dtype is not None
    if not numbers and isinstance(value, float | type(pd.NaT)) and pd.isna(value):
        return None  # in numbers and times, NaN and NaT are values
    return encode_value(value, codec)


def _is_list(value: Any, dtype: TensorDtype) -> bool:
    """Return whether a value to set is a list of values, not a single one."""
    if isinstance(value, np.ndarray):
        return value.dtype == object or not (value.ndim and dtype.type is np.ndarray)
    return isinstance(value, list | ExtensionArray | pd.Series | pd.Index)


def _indexer(array: TensorArray, item: Any) -> Any:
    """Return an index as an integer, a slice, or an array of numbers or of bools."""
    if isinstance(item, tuple):
        rest = [part for part in item if part is not Ellipsis]
        if len(rest) != 1:
            raise IndexError("too many indices for an array of one dimension")
        item = rest[0]
    if item is Ellipsis:
        return slice(None)
    item = check_array_indexer(array, item)
    if isinstance(item, Integral | slice | np.ndarray):
        return item
    raise IndexError(
        "only integers, slices (`:`), ellipsis (`...`), numpy.newaxis (`None`) and integer or boolean "
        "arrays are valid indices"
    )


def _is_text(spec: TensorSpec) -> bool:
    return spec.linked or (spec.kind.codec == "json" and not spec.sequence)


def _is_formatted() -> bool:
    """Return whether pandas formats an array for display, and has no formatter of the user.

    Then descriptions are enough. Decoding would take seconds and gigabytes if images are large.
    """
    frame = sys._getframe(2)  # noqa: SLF001 # the caller of __array__, through NumPy
    if frame.f_globals.get("__name__") != _FORMATTER:
        return False
    return getattr(frame.f_locals.get("self"), "formatter", None) is None


def _not_defined(action: str, remedy: str) -> InvalidInputError:
    return InvalidInputError(f"Values of tensors cannot be {action}. {remedy}.")


TensorDtype.array_type = TensorArray
