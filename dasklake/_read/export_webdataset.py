"""Write samples as tar files of WebDataset."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, cast

import numpy as np
from dask.bag import Bag, from_sequence
from dask.delayed import Delayed

from dasklake._codecs.registry import codec_for
from dasklake._codecs.sample import Sample, StoredValue, raw_value
from dasklake._codecs.sequence import SequenceCodec
from dasklake._read.export_plan import ExportPlan
from dasklake._schema.schema import TensorSpec
from dasklake._schema.values import Blob, Link
from dasklake.exceptions import InvalidInputError

#: Usual extensions of formats that have other names.
_EXTENSIONS = {"jpeg": "jpg", "tiff": "tif", "jpeg2000": "jp2"}


def check_names(names: Iterable[str]) -> None:
    """Refuse names of tensors that readers of WebDataset would change.

    Parameters
    ----------
    names : iterable of str
        The tensors to write.

    Raises
    ------
    InvalidInputError
        A name has a slash, or two names differ only in case.
    """
    seen: dict[str, str] = {}
    for name in names:
        if "/" in name:
            raise InvalidInputError(
                f"Tensor {name!r} has a slash in its name, which WebDataset takes for a folder. "
                "Leave it out with columns=."
            )
        other = seen.setdefault(name.lower(), name)
        if other != name:
            raise InvalidInputError(
                f"Tensors {other!r} and {name!r} have the same name in WebDataset, which ignores "
                "case. Leave one of them out with columns=."
            )


def shard_tasks(samples: Bag, plan: ExportPlan, specs: Mapping[str, TensorSpec]) -> list[Delayed]:
    """Return the tasks that write the missing shards, one for each partition of a bag.

    Parameters
    ----------
    samples : dask.bag.Bag
        The samples.
    plan : ExportPlan
        The shards.
    specs : mapping of str to TensorSpec
        The tensors to write.
    """
    numbers = from_sequence(range(plan.files), npartitions=plan.files)
    shards = samples.map_partitions(_write_shard, numbers, plan, specs)
    tasks: list[Delayed] = shards.to_delayed()
    return [tasks[number] for number in plan.missing()]


def _write_shard(
    samples: Iterable[Sample],
    numbers: Iterable[int],
    plan: ExportPlan,
    specs: Mapping[str, TensorSpec],
) -> list[None]:
    (shard,) = numbers
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for position, sample in enumerate(samples):
            members = list(_members(sample, specs))
            if not members:
                raise InvalidInputError(
                    f"Sample {position} of shard {shard} has no value, and WebDataset has no form "
                    "of such a sample. Leave it out with where(), or write more tensors."
                )
            extensions = [extension.lower() for extension, _ in members]
            if len(set(extensions)) < len(extensions):
                repeated = next(e for e in extensions if extensions.count(e) > 1)
                raise InvalidInputError(
                    f"Sample {position} of shard {shard} has two members {repeated!r}. Leave one of "
                    "their tensors out with columns=."
                )
            for extension, data in members:
                member = tarfile.TarInfo(f"{shard:06d}{position:06d}.{extension}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    plan.put(shard, buffer.getbuffer())
    return []


def _members(sample: Sample, specs: Mapping[str, TensorSpec]) -> Iterator[tuple[str, bytes]]:
    """Yield the extensions and the contents of a sample's members."""
    for name, spec in specs.items():
        value = raw_value(sample, name)
        if isinstance(value, StoredValue) and spec.encoded and isinstance(value.stored, Blob):
            yield f"{name}.{_extension(spec)}", bytes(value.stored.data)
            continue
        if isinstance(value, StoredValue) and spec.sequence and spec.item.encoded:
            yield from _files(value.stored, spec, name)
            continue
        value = sample[name]
        if value is not None:
            extension, data = _encoded(value, spec, name)
            yield f"{name}.{extension}", data


def _extension(spec: TensorSpec) -> str:
    """Return the usual extension of the files of a tensor."""
    form = spec.compression or "bin"
    return _EXTENSIONS.get(form, form)


def _files(stored: Any, spec: TensorSpec, name: str) -> Iterator[tuple[str, bytes]]:
    """Yield the members of a list of files."""
    codec = cast("SequenceCodec", codec_for(spec))
    items: list[Any] = list(codec.items(stored))
    for number, item in enumerate(items):
        yield f"{name}.{number:06d}.{_extension(spec.item)}", bytes(item.data)
    if not items:
        yield f"{name}.json", b"[]"  # no member means a missing value


def _encoded(value: Any, spec: TensorSpec, name: str) -> tuple[str, bytes]:
    """Return the extension and the content of a value that is not a file."""
    if isinstance(value, Link):
        return "txt", value.url.encode()
    if isinstance(value, str):
        return "txt", value.encode()
    if isinstance(value, np.generic) and value.dtype.kind in "iufb":
        return ("cls" if spec.class_names else "json"), json.dumps(value.item()).encode()
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind != "O":
        # Also times and complex scalars, for which JSON has no exact form.
        return _array(value, np.savez_compressed if spec.kind.codec == "mask" else np.save)
    try:
        return "json", json.dumps(value, default=_plain).encode()
    except (TypeError, ValueError) as error:
        raise InvalidInputError(
            f"Tensor {name!r} of htype {spec.htype!r} has a value without an exact form in a tar "
            f"file ({error}). Leave the tensor out with columns=."
        ) from error


def _array(value: Any, save: Callable[..., None]) -> tuple[str, bytes]:
    buffer = io.BytesIO()
    save(buffer, value)
    return ("npy" if save is np.save else "npz"), buffer.getvalue()


def _plain(value: Any) -> Any:
    """Return an array as lists, a scalar as a number, and a link as its URL.

    Raises
    ------
    TypeError
        JSON has no exact form of the value.
    """
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biufUO":
        return value.tolist()
    if isinstance(value, Link):
        return value.url
    form = getattr(value, "dtype", type(value).__name__)
    raise TypeError(f"JSON has no {form}")
