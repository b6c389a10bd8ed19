"""Answer words of Deep Lake, ``to_parquet`` and ``read_parquet`` with errors that name the equivalent."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import ParamSpec, TypeVar

from dasklake._schema.argument_types import with_checked_arguments
from dasklake.exceptions import InvalidInputError, UnknownNameError

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")

_BRANCHES = "A lake has no branches here. lake.log() lists its versions, dasklake.open(url, version=n) opens one."
_LOCKS = "There are no locks: processes may read and write at once. Omit it."
_CREDS = (
    "Credentials are storage options: creds={...}, or the name of a credentials key, creds='name'."
)
_CACHE = "The local cache is a folder: dasklake.open(url, cache='/folder', cache_size='50 GiB')."

_PARTITIONS = "Partitions are chunks of the lake. Use blocksize=."

#: Equivalents of arguments, by function.
_ARGUMENTS: Mapping[str, Mapping[str, str]] = {
    "to_lake": {
        "append": "Use mode='append'.",
        "overwrite": "Use mode='overwrite'.",
        "if_exists": "Use mode='create', 'append' or 'overwrite'.",
        "ignore_errors": "Use on_error='skip'.",
        "num_workers": "Set it on Dask's scheduler: dask.config.set(num_workers=...), or use a Client.",
        "scheduler": "Use options=dasklake.WriteOptions(scheduler=...).",
        "chunk_size": "Use options=dasklake.WriteOptions(chunk_size=...).",
        "retries": "Use options=dasklake.WriteOptions(retries=...).",
        "checkpoint_interval": "Use checkpoint_every=.",
        "progressbar": "Use progress=.",
        "skip_ok": "Give None as the value of a tensor that a sample does not have. Omit it.",
        "write_index": "A named index is stored. Drop it before: frame.reset_index(drop=True).to_lake(url).",
        "index": "A named index is stored. Drop it before: frame.reset_index(drop=True).to_lake(url).",
        "compression": "Use schema={'tensor': {..., 'compression': 'lz4'}}, for each tensor.",
        "engine": "There is one format. Omit it.",
        "partition_on": "Filters need no folders: lake.where([('column', '==', value)]) reads only matching chunks. Omit it.",
        "name_function": "Objects have unique names, so that writers never collide. Omit it.",
        "write_metadata_file": "Every commit has the metadata. Omit it.",
        "custom_metadata": "Use message='text' for the log, or run='name'.",
        "ignore_divisions": "Use mode='append'; divisions are not compared. Omit it.",
        "compute_kwargs": "Use options=dasklake.WriteOptions(scheduler=...).",
        "filesystem": "Use storage_options={...} with the URL.",
        "creds": "Use storage_options=.",
        "token": "Use storage_options={...}, or the name of a credentials key.",
        "num_proc": "Set it on Dask's scheduler: dask.config.set(num_workers=...), or use a Client.",
        "fn_kwargs": "Use transform_kwargs=.",
        "batch_format": "A frame gives DataFrames, all other collections arrays. Omit it.",
        "remove_columns": "Only the columns that transform returns are written. Omit it.",
        "input_columns": "Select the columns before: frame[['x']].to_lake(url, transform=...).",
    },
    "read_lake": {
        "split_row_groups": _PARTITIONS,
        "aggregate_files": _PARTITIONS,
        "categories": "Tensors with class names are read as categories. Omit it.",
        "calculate_divisions": "Without an index, divisions are always known. Omit it.",
        "engine": "There is one format. Omit it.",
        "filesystem": "Use storage_options={...} with the URL.",
        "dtype_backend": "Use tensors='arrow' for Arrow types.",
        "parquet_file_extension": "A lake names its objects itself. Omit it.",
        "dataset": "Use storage_options={...} with the URL.",
        "read": "Use storage_options={...} with the URL.",
        "creds": "Use storage_options=.",
        "token": "Use storage_options={...}, or the name of a credentials key.",
    },
    "open": {
        "token": _CREDS,
        "org_id": _CREDS,
        "read_only": "Opening never writes, and readers do not lock. Omit it.",
        "memory_cache_size": _CACHE,
        "local_cache_size": _CACHE,
        "lock_enabled": _LOCKS,
        "lock_timeout": _LOCKS,
        "verbose": "Opening prints nothing. Omit it.",
        "address": _BRANCHES,
        "access_method": "Samples are read when they are used; lake.copy_to(url) makes a local copy.",
        "check_integrity": "Use lake.verify().",
        "unlink": "Links are read when they are used. Use lake.materialize_links().",
    },
    "eval": {
        "check_lengths": "All tensors of a sample are always checked. Omit it.",
        "pad_data_in": "The length of a lake is that of its shortest tensor. Omit it.",
        "read_only_ok": "The input of eval() is never changed. Omit it.",
        "cache_size": "Items are read chunk by chunk. Omit it.",
        "verbose": "Use progressbar=False to print nothing.",
        "disable_label_sync": "Text labels become class names while the run writes. Omit it.",
        "extend_only": "Functions may use sample_out.extend() at any time. Omit it.",
        "batched": "Functions get single items. Use dasklake.to_lake(..., transform=, batched=True).",
        "batch_size": "Use checkpoint_interval=; partitions are made for you.",
    },
}
_EMPTY = {
    name: sentence
    for name, sentence in _ARGUMENTS["open"].items()
    if name in ("token", "org_id", "verbose", "lock_enabled", "lock_timeout", "read_only")
} | {
    "memory_cache_size": "A lake that is written needs no cache. Omit it.",
    "local_cache_size": "A lake that is written needs no cache. Omit it.",
    "public": "The storage decides who may read. Omit it.",
}

#: Equivalents of attributes and methods of a lake.
_ATTRIBUTES: Mapping[str, str] = {
    "connect": "Use lake.add_creds_key('name', managed=True): each process finds the values itself.",
    "commits": "Use lake.log().",
    "history": "Use lake.log().",
    "commit_id": "Use lake.version.",
    "pending_commit_id": "Use lake.version.",
    "version_state": "Use lake.version.",
    "checkout": _BRANCHES,
    "branch": _BRANCHES,
    "branches": _BRANCHES,
    "create_branch": _BRANCHES,
    "delete_branch": _BRANCHES,
    "merge": _BRANCHES,
    "diff": "Use lake.log(), which counts the samples of each version.",
    "tag": "Use lake.version as the name of a state, and dasklake.open(url, version=n).",
    "rollback": "Use lake.reset(), which discards what is not committed.",
    "revert_to": "Use dasklake.open(url, version=n), which reads an older version.",
    "has_head_changes": "Use lake.is_complete: False while a run is unfinished.",
    "pytorch": "Use lake.torch().",
    "dataloader": "Use lake.torch().",
    "tensorflow": "Use lake.batches(n), whose batches are dicts of arrays.",
    "numpy": "Use lake.take([0, 1]), or lake['tensor'].numpy().",
    "to_dataframe": "Use lake.to_dask_dataframe().",
    "filter": "Use lake.where([('tensor', '>', 1)]).",
    "query": "Use lake.where([('tensor', '>', 1)]).",
    "sample_by": "Use lake.select(rows).",
    "random_split": "Use lake.split({'train': 0.8, 'test': 0.2}).",
    "copy": "Use lake.copy_to(url).",
    "deepcopy": "Use lake.copy_to(url).",
    "save_view": "Use lake.select(rows).copy_to(url).",
    "load_view": "Use lake.select(rows), and keep view.rows.",
    "get_views": "Use lake.select(rows), and keep view.rows.",
    "add_column": "Use lake.create_tensor('name', ...).",
    "create_group": "Use lake.create_tensor('group/name', ...); groups need no call.",
    "create_tensor_like": "Use lake.create_tensor('name', ...).",
    "delete_group": "Use lake.delete_tensor('group/name').",
    "rename_group": "Use lake.rename_tensor('group/name', 'other/name').",
    "append_empty": "Use lake.append({}, skip_ok=True).",
    "add_row": "Use lake.append(sample).",
    "get_creds_keys": "Use lake.creds_keys.",
    "change_creds_management": "Use lake.update_creds_key('name', managed=True).",
    "tensors": "Use lake.schema, a mapping of names, and lake['tensor'].",
    "groups": "Use lake.schema; names of groups are 'group/name'.",
    "meta": "Use lake.schema.",
    "info": "Use lake.summary().",
    "path": "Use lake.url.",
    "root": "Use lake.url.",
    "rechunk": "Use lake.compact().",
    "optimize": "Use lake.compact().",
    "fix_vc": "Use lake.verify().",
    "size_approx": "Use lake.commit.totals.bytes.",
    "num_samples": "Use len(lake).",
    "min_len": "Use len(lake), the length of the shortest tensor.",
    "delete": "Delete the folder of the lake, or use dasklake.empty(url, overwrite=True).",
    "pop": "Use lake.select(rows).copy_to(url) with the samples to keep.",
    "visualize": "Use lake.summary(), or lake.to_dask_dataframe().head().",
    "read_only": "Opening never writes, and readers do not lock. Omit it.",
    "token": _CREDS,
    "org_id": _CREDS,
}

#: Equivalents of functions.
_FUNCTIONS: Mapping[str, str] = {
    "dataset": "Use dasklake.open(url), or dasklake.empty(url).",
    "Dataset": "Use dasklake.open(url), or dasklake.empty(url).",
    "create": "Use dasklake.empty(url).",
    "like": "Use dasklake.empty(url), and lake.create_tensor() for each tensor.",
    "open_read_only": "Use dasklake.open(url), which never writes.",
    "copy": "Use dasklake.open(url).copy_to(new_url).",
    "deepcopy": "Use dasklake.open(url).copy_to(new_url).",
    "exists": "Use dasklake.open(url), and catch LakeNotFoundError.",
    "delete": "Delete the folder of the lake, or use dasklake.empty(url, overwrite=True).",
    "connect": "Use dasklake.open(url, creds='name').",
    "query": "Use dasklake.open(url).where([('tensor', '>', 1)]).",
    "random_split": "Use dasklake.open(url).split({'train': 0.8, 'test': 0.2}).",
    "ingest_coco": "Use coco.ingest(), after: from dasklake.sources import coco.",
    "from_coco": "Use coco.ingest(), after: from dasklake.sources import coco.",
    "ingest_dataframe": "Use dasklake.to_lake(frame, url).",
    "from_parquet": "Use dasklake.to_lake(dask.dataframe.read_parquet(path), url).",
    "from_csv": "Use dasklake.to_lake(dask.dataframe.read_csv(path), url).",
    "ingest_classification": "Use dasklake.to_lake(bag, url, schema=...).",
    "ingest_yolo": "Use dasklake.to_lake(bag, url, schema=...).",
    "sources": "Import it: import dasklake.sources.",
    "testing": "Import it: import dasklake.testing.",
    "torch": "Import it: import dasklake.torch.",
    "types": "Use dasklake.TensorSpec(htype).",
}


def explained(
    function: Callable[_Parameters, _Result],
) -> Callable[_Parameters, _Result]:
    """Decorate a function, so that an unknown argument is an error that names the equivalent.

    Arguments of a wrong type are errors as well.
    """
    parameters = inspect.signature(function).parameters
    checked = with_checked_arguments(function)

    @functools.wraps(function)
    def call(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
        for name in kwargs:
            if name not in parameters:
                raise unknown_argument(function.__name__, name, list(parameters))
        return checked(*args, **kwargs)

    return call


def unknown_argument(function: str, name: str, existing: list[str]) -> InvalidInputError:
    """Return the error for an argument that a function does not have.

    Parameters
    ----------
    function : str
        Name of the function.
    name : str
        The argument.
    existing : list of str
        Names of the arguments that the function has.
    """
    sentences = _EMPTY if function == "empty" else _ARGUMENTS.get(function, {})
    remedy = sentences.get(name)
    if remedy is None:
        similar = get_close_matches(name, existing, 1, 0.75)
        remedy = f"Did you mean {similar[0]!r}? " if similar else ""
        remedy += f"Its arguments: {', '.join(existing)}."
    return InvalidInputError(f"{function}() has no argument {name!r}. {remedy}")


def unknown_attribute(name: str, tensors: list[str], existing: list[str]) -> UnknownNameError:
    """Return the error for an attribute that a lake or a view does not have.

    Parameters
    ----------
    name : str
        The attribute.
    tensors : list of str
        Names of the tensors.
    existing : list of str
        Names of the attributes.
    """
    remedy = _ATTRIBUTES.get(name)
    if name in tensors:
        remedy = f"Use lake[{name!r}] for the tensor."
    if remedy is None:
        similar = get_close_matches(name, [n for n in existing if not n.startswith("_")], 1, 0.75)
        remedy = f"Did you mean {similar[0]!r}?" if similar else "dir(lake) lists the attributes."
    return UnknownNameError(f"A lake has no attribute {name!r}. {remedy}")


def unknown_function(name: str, existing: list[str]) -> UnknownNameError:
    """Return the error for a function or class that the package does not have.

    Parameters
    ----------
    name : str
        The function or class.
    existing : list of str
        The public names.
    """
    remedy = _FUNCTIONS.get(name)
    if remedy is None:
        similar = get_close_matches(name, existing, 1, 0.75)
        remedy = f"Did you mean {similar[0]!r}?" if similar else "dir(dasklake) lists the names."
    return UnknownNameError(f"dasklake has no {name!r}. {remedy}")
