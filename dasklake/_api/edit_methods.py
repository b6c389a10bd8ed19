"""What changes a lake from one process: its tensors, and some samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from types import TracebackType
from typing import Any, Literal, Self, Unpack, overload

import dask.bag as db
from dask.delayed import Delayed

from dasklake._api.lake_base import LakeBase
from dasklake._api.write import WriteArguments, WriteOptions, WriteReport, to_lake
from dasklake._format import object_keys
from dasklake._log.run_entries import abort
from dasklake._log.schema_evolution import add_class_names, add_tensors, drop_tensor, rename_tensor
from dasklake._model.commit import Commit
from dasklake._run.preview import Preview
from dasklake._schema.schema import Schema, TensorSpec
from dasklake.exceptions import InvalidInputError, RunFailedError, SampleError, SchemaError

__all__ = ["EditMethods"]

#: What other libraries call a parameter of TensorSpec.
_ALIASES = {"sample_compression": "compression", "chunk_compression": "compression"}

#: Samples of one partition of an append.
_PARTITION = 1_000


class EditMethods(LakeBase):
    """Tensors are added, renamed and removed; samples are appended.

    Each call is a commit of its own. Inside ``with lake:`` new tensors and samples are collected
    and committed together at its end; an exception discards what was collected.
    """

    #: New tensors and samples of a ``with`` block; None outside of one.
    _tensors: dict[str, TensorSpec] | None = None
    _samples: list[Any] | None = None

    def __enter__(self) -> Self:
        if self._tensors is not None:
            raise InvalidInputError("The lake is in a with block already. Leave that one first.")
        self._tensors, self._samples = {}, []
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self.flush()
        finally:
            self._tensors = self._samples = None

    def flush(self) -> None:
        """Commit what a ``with`` block has collected so far.

        Raises
        ------
        SchemaError, ConflictError
            As :meth:`create_tensor`.
        SampleError
            As :meth:`append`.
        """
        if self._tensors:
            tensors, self._tensors = self._tensors, {}
            self._edit(lambda head: add_tensors(self._log, head, tensors))
        if self._samples:
            samples, self._samples = self._samples, []
            self._append(samples)

    def create_tensor(
        self, name: str, htype: str = "generic", *, exist_ok: bool = False, **parameters: Any
    ) -> None:
        """Add a tensor. Samples that are there already have no value of it.

        Until samples that have it are written, the new tensor is the shortest, and so ``len`` of
        the lake is 0.

        Parameters
        ----------
        name : str
            Its name; ``"a/b"`` is tensor ``b`` of the group ``a``.
        htype : str, default "generic"
            What the values mean.
        exist_ok : bool, default False
            Whether the tensor may be there already, as it is described.
        **parameters
            Those of :class:`dasklake.TensorSpec`. ``sample_compression`` and
            ``chunk_compression`` are ``compression``, where None says that there is none.

        Raises
        ------
        SchemaError
            The description is wrong, or there is a tensor of that name.
        ConflictError
            A run is unfinished: finish it, or close it with :meth:`reset`.

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
        spec = _spec(name, {"htype": htype, **_known(name, parameters)})
        if self._tensors is None:
            self._edit(lambda head: add_tensors(self._log, head, {name: spec}, exist_ok=exist_ok))
            return
        found = self._tensors.get(name, self.schema.get(name))
        if found is None:
            self._tensors[name] = spec
        elif not (exist_ok and found == spec):
            raise SchemaError(f"There is a tensor {name!r} already. Choose another name.")

    def rename_tensor(self, old: str, new: str) -> None:
        """Give a tensor another name. Older versions keep the old one.

        Parameters
        ----------
        old, new : str
            The names.

        Raises
        ------
        VersionNotFoundError
            There is no such tensor.
        SchemaError
            The new name is taken.
        ConflictError
            A run is unfinished: finish it, or close it with :meth:`reset`.
        """
        self.flush()
        self._edit(lambda head: rename_tensor(self._log, head, old, new))

    def delete_tensor(self, name: str) -> None:
        """Remove a tensor. Older versions keep it; its bytes stay in the chunks.

        Parameters
        ----------
        name : str
            The tensor.

        Raises
        ------
        VersionNotFoundError
            There is no such tensor.
        SchemaError
            The lake has samples and no other tensor.
        ConflictError
            A run is unfinished: finish it, or close it with :meth:`reset`.
        """
        self.flush()
        self._edit(lambda head: drop_tensor(self._log, head, name))

    def update_class_names(self, name: str, names: Sequence[str]) -> None:
        """Add class names to a ``class_label``. Those that it has keep their indices.

        Parameters
        ----------
        name : str
            The tensor.
        names : sequence of str
            The new names; or all of them, with the new ones last.

        Raises
        ------
        VersionNotFoundError
            There is no such tensor.
        SchemaError
            The tensor is no ``class_label``, a name is there twice, or some that it has are left
            out or in another order.
        ConflictError
            A run is unfinished: finish it, or close it with :meth:`reset`.

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
        """Append one sample. For more than a few use :meth:`extend`, or :func:`dasklake.to_lake`.

        Parameters
        ----------
        sample : mapping of str to object
            A value for each tensor; None is no value.
        skip_ok : bool, default False
            Whether tensors may be left out; they then have no value.

        Raises
        ------
        SampleError
            A tensor is missing or unknown, or a value does not fit. Nothing was appended.
        """
        self.extend([sample], skip_ok=skip_ok)

    def extend(
        self,
        samples: Iterable[Mapping[str, Any]] | Mapping[str, Sequence[Any]],
        *,
        skip_ok: bool = False,
    ) -> None:
        """Append samples, in one commit.

        Parameters
        ----------
        samples : iterable of mappings, or mapping of str to sequence
            The samples; or for each tensor the values of all of them.
        skip_ok : bool, default False
            Whether tensors may be left out; they then have no value.

        Raises
        ------
        SampleError
            A tensor is missing or unknown, or a value does not fit. Nothing was appended.
        InvalidInputError
            The sequences have different lengths.
        """
        rows = _rows(samples)
        if skip_ok:
            blank = dict.fromkeys([*self.schema, *(self._tensors or ())])
            rows = [{**blank, **row} if isinstance(row, Mapping) else row for row in rows]
        if self._samples is None:
            self._append(rows)
        else:
            self._samples += rows

    def summary(self) -> None:
        """Print the tensors and what the version holds."""
        print(self)  # noqa: T201 # what it is called for

    @overload
    def write(
        self,
        collection: Any,
        *,
        compute: Literal[True] = True,
        preview: None = None,
        **options: Unpack[WriteArguments],
    ) -> WriteReport: ...
    @overload
    def write(
        self,
        collection: Any,
        *,
        compute: Literal[False],
        preview: None = None,
        **options: Unpack[WriteArguments],
    ) -> Delayed: ...
    @overload
    def write(
        self,
        collection: Any,
        *,
        compute: bool = True,
        preview: int,
        **options: Unpack[WriteArguments],
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
                collection, self._store, mode=mode, run=run, **options
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
                options=WriteOptions(scheduler="sync"),
            )
        except RunFailedError as error:
            # Nobody has the samples to go on with; left open, it would keep the schema as it is.
            abort(self._log, self._log.require_head(), [run])
            if isinstance(error.__cause__, SampleError):
                raise error.__cause__ from None
            raise
        self.refresh()


def _known(name: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters as TensorSpec calls them."""
    known = {each.name for each in fields(TensorSpec) if each.repr} - {"htype"}
    found: dict[str, Any] = {}
    for key, value in parameters.items():
        ours = _ALIASES.get(key, key)
        if ours not in known:
            raise SchemaError(
                f"tensor {name!r}: there is no parameter {key!r}. Leave it out, or use one of: "
                f"{', '.join(sorted({*known, *_ALIASES}))}."
            )
        if ours in found:
            raise SchemaError(
                f"tensor {name!r}: {key!r} says a second time what {ours!r} is. Give one of them."
            )
        # Said to be None, other than left out, it is none, and not the htype's default.
        found[ours] = "none" if key in _ALIASES and value is None else value
    return found


def _spec(name: str, parameters: Mapping[str, Any]) -> TensorSpec:
    # Checked without its group, whose other tensors may come later.
    alone = Schema({name: {**parameters, "same_length": None}})[name]
    # Said again, for left out a compression is the htype's default.
    compression = alone.compression or "none"
    return replace(alone, compression=compression, same_length=parameters.get("same_length"))


def _rows(samples: Any) -> list[Any]:
    if not isinstance(samples, Mapping):
        return list(samples)
    lengths = {name: len(values) for name, values in samples.items()}
    if len(set(lengths.values())) > 1:
        raise InvalidInputError(
            f"The tensors have different numbers of values: {lengths}. Give each as many."
        )
    return [dict(zip(samples, row, strict=True)) for row in zip(*samples.values(), strict=True)]
