"""Methods of ``Lake`` that change tensors and append samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from functools import partial
from types import TracebackType
from typing import Any, Literal, Self, Unpack, overload

import dask.bag as db
import numpy as np
from dask.delayed import Delayed

from dasklake._api.lake_base import LakeBase
from dasklake._api.tensor_parameters import tensor_spec
from dasklake._api.write import WriteArguments, WriteOptions, WriteReport, to_lake
from dasklake._codecs.decoded_origins import origin_of, remember
from dasklake._codecs.sample import Sample, sealed
from dasklake._format import object_keys
from dasklake._log.run_entries import abort
from dasklake._log.schema_evolution import add_class_names, add_tensors, drop_tensor, rename_tensor
from dasklake._model.commit import Commit
from dasklake._run.preview import Preview
from dasklake._schema.argument_types import check_arguments
from dasklake._schema.schema import TensorSpec
from dasklake.exceptions import InvalidInputError, RunFailedError, SampleError, SchemaError

#: Samples per partition of an append.
_PARTITION = 1_000


@check_arguments
class EditMethods(LakeBase):
    """Add, rename and delete tensors; append samples.

    Each call makes a commit. Inside a ``with lake:`` block, new tensors and samples are collected
    and committed at the end of the block, in the order of the calls: tensors that follow each other
    in one commit, and samples likewise. Until then, lengths and values do not include them. Other
    changes inside the block first commit what was collected. An exception or :meth:`Lake.reset`
    discards it.
    """

    #: Changes that a ``with`` block has collected, in order: new tensors by name, or samples. None
    #: outside of a block.
    _collected: list[dict[str, TensorSpec] | list[Any]] | None = None

    def __enter__(self) -> Self:
        if self._collected is not None:
            raise InvalidInputError("The lake is already in a with block. Leave that block first.")
        self._collected = []
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self.flush()
        finally:
            self._collected = None

    def flush(self) -> None:
        """Commit the tensors and samples that a ``with`` block has collected so far.

        Raises
        ------
        SchemaError, ConflictError
            As :meth:`create_tensor`.
        SampleError
            As :meth:`append`.
        """
        while self._collected:
            change = self._collected.pop(0)
            if isinstance(change, dict):
                self._edit(partial(self._add_tensors, change))
            else:
                self._append(change)

    def _discard_collected(self) -> None:
        if self._collected is not None:
            self._collected = []

    def _add_tensors(
        self, tensors: Mapping[str, TensorSpec], head: Commit, *, exist_ok: bool = False
    ) -> Commit:
        return add_tensors(self._log, head, tensors, exist_ok=exist_ok)

    def _collected_tensors(self) -> dict[str, TensorSpec]:
        tensors: dict[str, TensorSpec] = {}
        for change in self._collected or ():
            tensors |= change if isinstance(change, dict) else {}
        return tensors

    def create_tensor(
        self, name: str, htype: str = "generic", *, exist_ok: bool = False, **parameters: Any
    ) -> None:
        """Add a tensor. Existing samples have no value for it.

        The new tensor is empty until samples that have it are written. Until then, ``len(lake)``
        is 0, because it is the length of the shortest tensor.

        Parameters
        ----------
        name : str
            Name of the tensor; ``"a/b"`` is tensor ``b`` of group ``a``.
        htype : str, default "generic"
            Type of the values, such as ``"image"`` or ``"bbox"``.
        exist_ok : bool, default False
            Allow an existing tensor of the same description.
        **parameters
            Parameters of :class:`dasklake.TensorSpec`. ``sample_compression`` and
            ``chunk_compression`` are aliases of ``compression``; their None means no compression.

        Raises
        ------
        SchemaError
            The description is invalid, or the lake already has a tensor ``name``.
        ConflictError
            A run is unfinished. Finish it, or close it with :meth:`reset`.

        Examples
        --------
        >>> import dasklake
        >>> lake = dasklake.empty("memory://created")
        >>> with lake:
        ...     lake.create_tensor("categories", htype="class_label", class_names=["cat", "dog"])
        ...     lake.create_tensor("boxes", htype="bbox", coords="pixel-ltwh")
        >>> list(lake.schema)
        ['categories', 'boxes']
        """
        spec = tensor_spec(name, htype, parameters)
        if self._collected is None:
            self._edit(partial(self._add_tensors, {name: spec}, exist_ok=exist_ok))
            return
        existing = self._collected_tensors().get(name, self.schema.get(name))
        if existing is None:
            if not (self._collected and isinstance(self._collected[-1], dict)):
                self._collected.append({})
            self._collected[-1] |= {name: spec}  # type: ignore[operator] # a dict, see above
        elif not (exist_ok and existing == spec):
            raise SchemaError(f"There is already a tensor {name!r}. Choose another name.")

    def rename_tensor(self, old: str, new: str) -> None:
        """Rename a tensor. Older versions keep the old name.

        Parameters
        ----------
        old, new : str
            Old and new name.

        Raises
        ------
        VersionNotFoundError
            The lake does not have a tensor ``old``.
        SchemaError
            ``new`` is the name of another tensor.
        ConflictError
            A run is unfinished. Finish it, or close it with :meth:`reset`.
        """
        self.flush()
        self._edit(lambda head: rename_tensor(self._log, head, old, new))

    def delete_tensor(self, name: str) -> None:
        """Delete a tensor. Older versions keep it, and its bytes stay in the chunks.

        Parameters
        ----------
        name : str
            Name of the tensor.

        Raises
        ------
        VersionNotFoundError
            The lake does not have a tensor ``name``.
        SchemaError
            The lake has samples, and this is its only tensor.
        ConflictError
            A run is unfinished. Finish it, or close it with :meth:`reset`.
        """
        self.flush()
        self._edit(lambda head: drop_tensor(self._log, head, name))

    def update_class_names(self, name: str, names: Sequence[str]) -> None:
        """Add class names to a ``class_label`` tensor. Existing names keep their indices.

        Parameters
        ----------
        name : str
            Name of the tensor.
        names : sequence of str
            The new names, or all names with the new ones last.

        Raises
        ------
        VersionNotFoundError
            The lake does not have a tensor ``name``.
        SchemaError
            The tensor is not a ``class_label``, a name is repeated, or existing names are missing
            or in another order.
        ConflictError
            A run is unfinished. Finish it, or close it with :meth:`reset`.

        Examples
        --------
        >>> import dasklake
        >>> lake = dasklake.empty("memory://more-names")
        >>> lake.create_tensor("label", htype="class_label", class_names=["cat"])
        >>> lake.update_class_names("label", ["dog"])
        >>> lake.schema["label"].class_names
        ('cat', 'dog')
        """
        self.flush()
        self._edit(lambda head: add_class_names(self._log, head, name, names))

    def append(self, sample: Mapping[str, Any], *, skip_ok: bool = False) -> None:
        """Append one sample. To append many, use :meth:`extend` or :func:`dasklake.to_lake`.

        Parameters
        ----------
        sample : mapping of str to object
            A value for each tensor. None means no value.
        skip_ok : bool, default False
            Allow missing tensors. They have no value.

        Raises
        ------
        SampleError
            A tensor is missing or unknown, or a value is invalid. Nothing was appended.
        """
        self.extend([sample], skip_ok=skip_ok)

    def extend(
        self,
        samples: Iterable[Mapping[str, Any]] | Mapping[str, Sequence[Any]],
        *,
        skip_ok: bool = False,
    ) -> None:
        """Append samples in one commit.

        Parameters
        ----------
        samples : iterable of mappings, or mapping of str to sequence
            The samples, or for each tensor its values in all samples.
        skip_ok : bool, default False
            Allow missing tensors. They have no value.

        Raises
        ------
        SampleError
            A tensor is missing or unknown, or a value is invalid. Nothing was appended.
        InvalidInputError
            The sequences have different lengths.
        """
        rows = _rows(samples)
        if skip_ok:
            blank = Sample(dict.fromkeys([*self.schema, *self._collected_tensors()]))
            rows = [_merged(blank, row) if isinstance(row, Mapping) else row for row in rows]
        if self._collected is None:
            self._append(rows)
            return
        if not (self._collected and isinstance(self._collected[-1], list)):
            self._collected.append([])
        # Copied, because the caller may reuse the same dict or array for the next sample.
        self._collected[-1] += map(_copied, rows)  # type: ignore[operator] # a list, see above

    def summary(self) -> None:
        """Print the tensors and the size of the version."""
        print(self)  # noqa: T201 # its purpose

    @overload
    def write(
        self, collection: Any, *, compute: Literal[True] = True, **options: Unpack[WriteArguments]
    ) -> WriteReport: ...
    @overload
    def write(
        self, collection: Any, *, compute: Literal[False], **options: Unpack[WriteArguments]
    ) -> Delayed: ...
    @overload
    def write(
        self, collection: Any, *, preview: int, **options: Unpack[WriteArguments]
    ) -> Preview: ...
    def write(
        self,
        collection: Any,
        *,
        mode: Literal["create", "append", "overwrite", "resume"] = "append",
        run: str | None = None,
        **options: Any,
    ) -> WriteReport | Delayed | Preview:
        """Write a Dask collection to this lake, then :meth:`refresh`.

        Parameters
        ----------
        collection : dask Bag, DataFrame, Array, or mapping of str to aligned Arrays
            The input.
        mode : {"append", "overwrite", "resume"}, default "append"
            As for :func:`dasklake.to_lake`.
        run : str, optional
            Name of the run. If the lake was emptied after a run of that name, ``"resume"`` begins
            a new run, ``<run>-2`` and so on.
        **options
            Further arguments of :func:`dasklake.to_lake`.

        Returns
        -------
        WriteReport
            Result of the write. With ``compute=False`` a Delayed, with ``preview`` a
            :class:`dasklake.Preview`.

        Raises
        ------
        LakeError
            As :func:`dasklake.to_lake`.
        """
        self.flush()
        if mode == "resume" and run is not None:
            run = self._resumable_name(run)
        try:
            result: WriteReport | Delayed | Preview = to_lake(
                collection, self._store, mode=mode, run=run, **{"links": self._links, **options}
            )
        finally:
            self.refresh()
        return result

    def _resumable_name(self, run: str) -> str:
        """Return the run that continues a job, or a new name if the lake was emptied since."""
        head = self._log.require_head()
        orders: Any = None
        name, number = run, 1
        while name in head.runs and head.runs[name].replaced:
            orders = self._log.manifest(head).order if orders is None else orders
            if head.runs[name].order in orders:
                break  # its rows still exist: to_lake reports why it cannot continue
            number += 1
            name = f"{run}-{number}"
        return name

    def _edit(self, change: Callable[[Commit], Commit]) -> None:
        self._pin(change(self._log.require_head()))

    def _append(self, samples: Sequence[Any]) -> None:
        if not samples:
            return
        run = f"append-{object_keys.new_id()[:8]}"
        bag = db.from_sequence(samples, partition_size=_PARTITION)
        try:
            to_lake(
                bag,
                self._store,
                mode="append",
                run=run,
                input_id=run,
                checkpoint_every=None,
                progress=False,
                links=self._links,
                options=WriteOptions(scheduler="sync"),
            )
        except RunFailedError as error:
            # The samples are lost, and an open run would prevent changes of the schema.
            abort(self._log, self._log.require_head(), [run])
            if isinstance(error.__cause__, SampleError):
                raise error.__cause__ from None
            raise
        self.refresh()


def _merged(blank: Sample, row: Mapping[str, Any]) -> Sample:
    merged = blank.copy()
    merged.update(row)
    return merged


def _copied(value: Any) -> Any:
    """Return a copy of containers, arrays and buffers, which the caller may change later."""
    if isinstance(value, np.ndarray):
        # Objects in the array may be containers, too; `astype` would keep references to them.
        copy = deepcopy(value) if value.dtype.hasobject else value.copy()
        origin = origin_of(value)
        if origin is not None:
            remember(copy, origin.stored, origin.codec)
        return copy
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    if isinstance(value, Sample):
        return sealed(value, _copied)
    if type(value) is dict:
        return {key: _copied(item) for key, item in value.items()}
    return type(value)(map(_copied, value)) if type(value) in (list, tuple) else value


def _rows(samples: Any) -> list[Any]:
    if isinstance(samples, str | bytes) or not isinstance(samples, Iterable):
        raise InvalidInputError(
            "samples must be a list of samples, or a mapping of tensor names to lists, got "
            f"{type(samples).__name__}. Use append() for one sample."
        )
    if not isinstance(samples, Mapping):
        return list(samples)
    single = [name for name, values in samples.items() if not hasattr(values, "__len__")]
    if single:
        raise InvalidInputError(
            f"The values of tensor {single[0]!r} must be a list with one value for each sample, got "
            f"{type(samples[single[0]]).__name__}. Use append() for one sample."
        )
    lengths = {name: len(values) for name, values in samples.items()}
    if len(set(lengths.values())) > 1:
        raise InvalidInputError(f"All tensors must have the same number of values, got {lengths}.")
    return [dict(zip(samples, row, strict=True)) for row in zip(*samples.values(), strict=True)]
