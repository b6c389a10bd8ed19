"""Methods of ``Lake`` and ``View`` that return their samples as Dask collections."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import dask.array as da
import dask.bag as db
import dask.dataframe as dd

from dasklake._api.sample_set import SampleSet
from dasklake._read.filters import Condition, FilterLike, parse_filters
from dasklake._read.frame_index import index_tensors
from dasklake._read.graph import to_array, to_bag, to_bag_of_rows, to_dataframe
from dasklake._run.options import parse_size
from dasklake._schema.argument_types import check_arguments
from dasklake.exceptions import InvalidInputError


@check_arguments
class CollectionMethods(SampleSet):
    """Return the samples as a Bag, a DataFrame or Arrays."""

    def _condition(self, filters: FilterLike) -> Condition:
        return parse_filters(filters, {name: self.schema[name] for name in self._names})

    def to_dask_bag(
        self, columns: Sequence[str] | None = None, *, blocksize: int | str | None = None
    ) -> db.Bag:
        """Return the samples as a Dask Bag of dicts.

        A task decodes one sample at a time. It holds all decoded samples of its partition only if
        the samples themselves are its result, as in ``bag.persist()``.

        Parameters
        ----------
        columns : sequence of str, optional
            Tensors to read. By default, all.
        blocksize : int or str, optional
            Maximum size of a partition in memory, in decoded bytes or as text such as
            ``"64 MiB"``: smaller chunks are joined, and larger ones are split between samples. By
            default, each chunk is a partition.

        Returns
        -------
        dask.bag.Bag
            The samples, in order.

        Raises
        ------
        VersionNotFoundError
            The lake does not have a tensor of ``columns``.
        InvalidInputError
            ``columns`` is not a sequence of names, or ``blocksize`` is not a valid size.
        """
        names = self._columns(columns)
        rows = self._rows_of(names)
        reader, size = self._reader, _size(blocksize)
        groups = reader.row_groups(names, rows, size)
        if any(group.selected is not None for group in groups):
            selected = [reader.select(group.numbers) for group in groups]
            return to_bag_of_rows(reader.origin, selected, names, rows)
        return to_bag(reader.origin, [group.locations for group in groups], names)

    def to_dask_dataframe(
        self,
        columns: Sequence[str] | None = None,
        *,
        filters: FilterLike | None = None,
        index: str | Sequence[str] | bool | None = None,
        blocksize: int | str | None = None,
        tensors: Literal["stored", "arrow"] = "stored",
    ) -> dd.DataFrame:
        """Return the samples as a Dask DataFrame.

        Columns that were written from a DataFrame have their original dtype, and its index is the
        index again. Without a stored index, the index is the number of the sample. Lists of numbers
        become Arrow lists. Images, masks, documents and other arrays become columns of
        :class:`TensorDtype`, which decode a value when it is asked for.

        Parameters
        ----------
        columns : sequence of str, optional
            Tensors to read. By default, all. A later selection, such as ``frame[columns]``, also
            restricts what is read.
        filters : pyarrow.compute.Expression or list of tuple, optional
            Samples to read, as in :meth:`where`. Each task reads the tensors of the filter first, and
            of the others only the samples that match.
        index : str, sequence of str or bool, optional
            Tensors that become the index. By default, the index that was written from a frame,
            unless ``columns`` has its tensors. False means the number of the sample.
        blocksize : int or str, optional
            As for :meth:`to_dask_bag`. By default, each chunk is a partition, and chunks of more
            than 128 MiB in memory are split.
        tensors : {"stored", "arrow"}, default "stored"
            Type of columns for whose values pandas and Arrow have no type. ``"stored"``:
            :class:`TensorDtype`. ``"arrow"``: nested lists of numbers, bytes of files, text of JSON
            and URLs of links, such as for Parquet files that other programs read.

        Returns
        -------
        dask.dataframe.DataFrame
            The samples, in order. The divisions are known if the index is the number of the sample.
            Lengths are known without ``filters``.

        Raises
        ------
        VersionNotFoundError
            The lake does not have a tensor of ``columns``.
        InvalidInputError
            ``columns`` is not a sequence of names, ``filters`` is not valid, ``index`` is not a tensor
            with one value per sample, or ``blocksize`` or ``tensors`` is not valid.
        """
        if tensors not in ("stored", "arrow"):
            raise InvalidInputError(
                f"tensors must be 'stored' or 'arrow', got {tensors!r}. Fix it."
            )
        names = self._columns(columns)
        levels = index_tensors(self.schema, columns, index)
        condition = None if filters is None else self._condition(filters)
        used = list(dict.fromkeys([*names, *levels, *(condition.tensors if condition else ())]))
        plan = self._reader.frame_plan(used, self._rows_of(used), _size(blocksize))
        shown = [name for name in names if name not in levels]
        return to_dataframe(plan, shown, levels, condition, arrow=tensors == "arrow")

    def to_dask_array(self, name: str, *, blocksize: int | str | None = None) -> da.Array:
        """Return a tensor of fixed shape as a Dask Array; axis 0 is the samples.

        Parameters
        ----------
        name : str
            Name of the tensor.
        blocksize : int or str, optional
            As for :meth:`to_dask_dataframe`.

        Returns
        -------
        dask.array.Array
            Array of the tensor's dtype, with known chunk sizes.

        Raises
        ------
        VersionNotFoundError
            The lake does not have a tensor ``name``.
        InvalidInputError
            The tensor does not have a fixed shape, or ``blocksize`` is not a valid size.
        """
        names = self._columns([name])
        rows = self._rows_of(names)
        groups = self._reader.row_groups(names, rows, _size(blocksize))
        origin = self._reader.origin.with_scalars(self._reader.scalars(names))
        return to_array(origin, groups, name, rows)


def _size(blocksize: int | str | None) -> int | None:
    return None if blocksize is None else parse_size(blocksize, "blocksize")
