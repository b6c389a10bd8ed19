"""Methods of ``Lake`` and ``View`` that write samples in the formats of other libraries."""

from __future__ import annotations

import importlib
import operator
import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import dask.dataframe as dd
import numpy.typing as npt
import pyarrow as pa
from dask.base import tokenize

from dasklake._api.collection_methods import CollectionMethods
from dasklake._api.configuration import open_store
from dasklake._read.export_arrow import (
    Flavor,
    arrow_batches,
    arrow_form,
    batches_of,
    parquet_tasks,
)
from dasklake._read.export_plan import ExportPlan
from dasklake._read.export_webdataset import check_names, shard_tasks
from dasklake._read.graph import to_dataframe
from dasklake._read.row_index import resolve_selection
from dasklake._read.rows import Rows, numbers_at
from dasklake._run.export_tasks import run_export
from dasklake._run.options import parse_size
from dasklake._schema.argument_types import check_arguments
from dasklake._schema.schema import TensorSpec
from dasklake.creds import StorageOptions
from dasklake.exceptions import InvalidInputError

__all__ = ["ExportMethods"]


@check_arguments
class ExportMethods(CollectionMethods):
    """Write the samples for other libraries."""

    def to_arrow(
        self,
        columns: Sequence[str] | None = None,
        *,
        rows: slice | Sequence[int] | npt.NDArray[Any] | None = None,
        batch_size: int | None = None,
        blocksize: int | str | None = None,
        flavor: Flavor = None,
    ) -> pa.RecordBatchReader:
        """Return the samples as a stream of Arrow record batches.

        DuckDB, Polars, pandas and Hugging Face datasets read such a stream. One batch is in memory
        at a time. The types of the columns are those of ``to_dask_dataframe(tensors="arrow")``:
        files are their bytes, class labels with names are dictionaries of strings, also in lists, and
        ragged arrays are nested lists. :meth:`take` and :meth:`batches` decode files.

        Parameters
        ----------
        columns : sequence of str, optional
            Tensors to read. By default, all.
        rows : slice, sequence of int, or numpy.ndarray, optional
            The samples, in any order, also repeatedly; or a mask of all samples. By default, all.
        batch_size : int, optional
            Samples of a batch. The last batch may have fewer. By default, ``blocksize`` decides.
        blocksize : int or str, optional
            Maximum decoded size of the samples that are read together, as for
            :meth:`to_dask_dataframe`. By default, each chunk is a batch, and chunks of more than
            128 MiB in memory are split.
        flavor : {None, "huggingface"}, optional
            ``"huggingface"``: the types that Hugging Face ``datasets`` shows as ``Image``, ``Audio``,
            ``ClassLabel`` and lists of fixed size, and the metadata that it finds them by.

        Returns
        -------
        pyarrow.RecordBatchReader
            The samples, in order. The metadata of each field has the htype and dtype of its tensor.

        Raises
        ------
        VersionNotFoundError
            There is no tensor of a name in ``columns``.
        InvalidInputError
            An argument is not valid.
        IndexError
            A number of ``rows`` is out of range.

        Examples
        --------
        >>> import dasklake
        >>> lake = dasklake.empty("memory://to-arrow")
        >>> lake.create_tensor("label", "class_label", class_names=["cat", "dog"], shape=())
        >>> lake.create_tensor("boxes", "bbox")
        >>> lake.extend({"label": [1, 0], "boxes": [[[0, 0, 2, 2]], []]})
        >>> table = lake.to_arrow().read_all()
        >>> table["label"].to_pylist()
        ['dog', 'cat']
        >>> table["boxes"].to_pylist()
        [[[0.0, 0.0, 2.0, 2.0]], []]
        >>> lake.to_arrow(["label"], rows=[1, 1, 0], batch_size=2).read_next_batch().num_rows
        2
        """
        self.flush()
        size = None if batch_size is None else _batch_size(batch_size)
        numbers = (
            None
            if rows is None
            else numbers_at(self._rows, resolve_selection(rows, len(self._rows)))
        )
        frame, specs = self._arrow_frame(columns, blocksize, numbers)
        form = arrow_form(frame, specs, _flavor(flavor))
        batches = arrow_batches(frame, form)
        if size is not None:
            batches = batches_of(batches, size)
        return pa.RecordBatchReader.from_batches(form.schema, batches)

    def _arrow_frame(
        self,
        columns: Sequence[str] | None,
        blocksize: int | str | None,
        rows: Rows | None = None,
    ) -> tuple[dd.DataFrame, dict[str, TensorSpec]]:
        names = self._columns(columns)
        repeated = [name for name in names if names.count(name) > 1]
        if repeated:
            raise InvalidInputError(
                f"columns must have each tensor once, got {repeated[0]!r} repeatedly. Give it once."
            )
        size = None if blocksize is None else parse_size(blocksize, "blocksize")
        plan = self._reader.frame_plan(names, self._rows_of(names) if rows is None else rows, size)
        frame = to_dataframe(plan, names, arrow=True)
        return frame, {name: self.schema[name] for name in names}

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Export the samples as an Arrow C stream, which ``pyarrow.table(lake)`` reads.

        References
        ----------
        .. [1] The Arrow PyCapsule interface,
           https://arrow.apache.org/docs/format/CDataInterface/PyCapsuleInterface.html.
        """
        return self.to_arrow().__arrow_c_stream__(requested_schema)

    def to_parquet(
        self,
        url: str | os.PathLike[str],
        columns: Sequence[str] | None = None,
        *,
        blocksize: int | str | None = None,
        flavor: Flavor = None,
        progress: bool | Literal["auto"] = "auto",
        storage_options: StorageOptions = None,
    ) -> int:
        """Write the samples as a folder of Parquet files, in parallel through Dask.

        The columns are those of :meth:`to_arrow`. A file appears whole or not at all. A call that was
        interrupted can be repeated with the same samples, columns and size: it skips the files that
        exist.

        Parameters
        ----------
        url : str or path
            The folder.
        columns : sequence of str, optional
            Tensors to write. By default, all.
        blocksize : int or str, optional
            Maximum decoded size of a file's samples, as for :meth:`to_dask_dataframe`.
        flavor : {None, "huggingface"}, optional
            As for :meth:`to_arrow`.
        progress : bool or "auto", default "auto"
            Whether to show a progress bar. ``"auto"`` shows one in terminals and notebooks.
        storage_options : mapping, callable or str, optional
            Options of fsspec for ``url``.

        Returns
        -------
        int
            Number of files.

        Raises
        ------
        VersionNotFoundError
            There is no tensor of a name in ``columns``.
        InvalidInputError
            An argument is not valid, or the folder has an export of other samples.
        StoreError
            The storage failed.
        RunLostError
            The connection to the cluster is lost.
        RunFailedError
            Workers died repeatedly, or a file cannot be written for another reason.
        MissingExtraError
            ``progress`` is True and tqdm is not installed.

        Examples
        --------
        >>> import dasklake
        >>> import pandas as pd
        >>> lake = dasklake.empty("memory://to-parquet")
        >>> lake.create_tensor("x", dtype="int64", shape=())
        >>> lake.extend({"x": [1, 2]})
        >>> lake.to_parquet("memory://parquet-files")
        1
        >>> pd.read_parquet("memory://parquet-files/000000.parquet")["x"].tolist()
        [1, 2]
        """
        self.flush()
        frame, specs = self._arrow_frame(columns, blocksize)
        form = arrow_form(frame, specs, _flavor(flavor))
        plan = self._plan_of(url, storage_options, frame.npartitions, ".parquet", frame, flavor)
        run_export(parquet_tasks(frame, form, plan), plan.files, "to_parquet", progress)
        return plan.files

    def _plan_of(
        self,
        url: str | os.PathLike[str],
        storage_options: StorageOptions,
        files: int,
        suffix: str,
        collection: Any,
        flavor: Flavor = None,
    ) -> ExportPlan:
        """Return the plan of an export, after writing it or comparing it with the folder's."""
        identity = tokenize(self._reader.origin, collection, *([flavor] if flavor else []))
        plan = ExportPlan(open_store(url, storage_options), files, suffix, identity)
        plan.begin()
        return plan

    def to_webdataset(
        self,
        url: str | os.PathLike[str],
        columns: Sequence[str] | None = None,
        *,
        shard_size: int | str = "256 MiB",
        progress: bool | Literal["auto"] = "auto",
        storage_options: StorageOptions = None,
    ) -> int:
        """Write the samples as tar files of WebDataset, in parallel through Dask.

        A member of a shard is named ``<sample>.<tensor>.<extension>``. Files such as JPEGs keep their
        bytes. Numbers are ``.cls`` (class labels) or ``.json``, texts and links ``.txt``, arrays,
        times and complex numbers ``.npy``, and masks ``.npz``. Files in a list have a member each,
        ``<sample>.<tensor>.<number>.<extension>``; an empty list of files is ``[]`` in ``.json``. A value
        that is missing has no member.

        A shard appears whole or not at all. A call that was interrupted can be repeated with the same
        samples, columns and size: it skips the shards that exist.

        Parameters
        ----------
        url : str or path
            The folder.
        columns : sequence of str, optional
            Tensors to write. By default, all.
        shard_size : int or str, default "256 MiB"
            Maximum decoded size of the samples of a shard, which is held in memory.
        progress : bool or "auto", default "auto"
            Whether to show a progress bar. ``"auto"`` shows one in terminals and notebooks.
        storage_options : mapping, callable or str, optional
            Options of fsspec for ``url``.

        Returns
        -------
        int
            Number of shards.

        Raises
        ------
        VersionNotFoundError
            There is no tensor of a name in ``columns``.
        InvalidInputError
            An argument is not valid, or the folder has an export of other samples.
        StoreError
            The storage failed.
        RunLostError
            The connection to the cluster is lost.
        RunFailedError
            Workers died repeatedly, or a file cannot be written for another reason.
        MissingExtraError
            ``progress`` is True and tqdm is not installed.

        References
        ----------
        .. [1] The WebDataset format, https://github.com/webdataset/webdataset.

        Examples
        --------
        >>> import dasklake
        >>> lake = dasklake.empty("memory://to-webdataset")
        >>> lake.create_tensor("label", "class_label", class_names=["cat", "dog"], shape=())
        >>> lake.extend({"label": [1, 0]})
        >>> lake.to_webdataset("memory://webdataset-shards")
        1
        """
        self.flush()
        size = parse_size(shard_size, "shard_size")
        check_names(self._columns(columns))
        bag = self.to_dask_bag(columns, blocksize=size)
        specs = {name: self.schema[name] for name in self._columns(columns)}
        plan = self._plan_of(
            url, storage_options, bag.npartitions if len(self._rows) else 0, ".tar", bag
        )
        if plan.files:
            run_export(shard_tasks(bag, plan, specs), plan.files, "to_webdataset", progress)
        return plan.files

    def to_coco(
        self,
        url: str | os.PathLike[str],
        *,
        tensors: Mapping[str, str] | None = None,
        category_ids: Mapping[str, int] | None = None,
        storage_options: StorageOptions = None,
    ) -> int:
        """Write the samples as an annotation file of COCO.

        Parameters
        ----------
        url : str or path
            The annotation file.
        tensors, category_ids, storage_options : mapping, optional
            As for :func:`dasklake.sources.coco.export`.

        Returns
        -------
        int
            Number of annotations.

        Raises
        ------
        InvalidInputError
            The samples have no annotations, or an argument is not valid.
        MissingExtraError
            pycocotools is not installed.
        """
        # The module is above this one, and needs the extra "coco".
        coco = importlib.import_module("dasklake.sources.coco")
        count: int = coco.export(
            self,
            url,
            tensors=tensors,
            category_ids=category_ids,
            storage_options=storage_options,
        )
        return count


def _flavor(flavor: Any) -> Flavor:
    if flavor not in (None, "huggingface"):
        raise InvalidInputError(f"flavor must be None or 'huggingface', got {flavor!r}.")
    chosen: Flavor = flavor
    return chosen


def _batch_size(size: Any) -> int:
    try:
        count = 0 if isinstance(size, bool) else operator.index(size)
    except TypeError:
        count = 0
    if count < 1:
        raise InvalidInputError(f"batch_size must be a positive integer, got {size!r}.")
    return count
