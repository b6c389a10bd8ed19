"""Parse and describe the options of batches: the forms of values, and the order of an epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dasklake._read.collate import Transform
from dasklake._read.fetched import Form
from dasklake._schema.schema import TensorSpec
from dasklake.exceptions import InvalidInputError

__all__ = ["BatchOptions", "Forms", "Shuffle", "forms_of"]

#: Forms of the values of each tensor.
Forms = Mapping[str, Form]


def forms_of(schema: Mapping[str, TensorSpec], names: Sequence[str], decode: Any) -> Forms:
    """Parse the argument ``decode``.

    Parameters
    ----------
    schema : mapping of str to TensorSpec
        The tensors of the version.
    names : sequence of str
        The tensors that are read.
    decode : bool or mapping
        True, False, or a mapping of names to True, False or ``"bytes"``.

    Raises
    ------
    InvalidInputError
        ``decode`` is something else, names another tensor, or a tensor without files.
    """
    if isinstance(decode, bool):
        return dict.fromkeys(names, Form.DECODED if decode else Form.STORED)
    if not isinstance(decode, Mapping):
        raise InvalidInputError(
            f"decode must be True, False, or a dict such as {{'image': 'bytes'}}, got {decode!r}."
        )
    forms = dict.fromkeys(names, Form.DECODED)
    for name, form in decode.items():
        if name not in forms:
            raise InvalidInputError(
                f"decode names {name!r}, which is not read. Use one of: {', '.join(names)}."
            )
        if isinstance(form, bool):
            forms[name] = Form.DECODED if form else Form.STORED
        elif form != "bytes":
            raise InvalidInputError(
                f"decode must give True, False or 'bytes' for tensor {name!r}, got {form!r}."
            )
        elif not _has_files(schema[name]):
            raise InvalidInputError(
                f"decode cannot give bytes of tensor {name!r}: it does not contain files. Use True "
                "or False."
            )
        else:
            forms[name] = Form.BYTES
    return forms


def _has_files(spec: TensorSpec) -> bool:
    return spec.item.encoded if spec.sequence else spec.encoded or spec.linked


@dataclass(frozen=True, slots=True)
class Shuffle:
    """The order of an epoch.

    Attributes
    ----------
    shuffle : bool
        Whether the samples are shuffled.
    seed, epoch : int
        Seed of the order, and number of the epoch.
    block, window : int or None
        Consecutive samples that stay together, and blocks that are mixed. None for the default, which
        depends on the storage.
    weights : numpy.ndarray or None
        float64: weight of each sample.
    """

    shuffle: bool = False
    seed: int = 0
    epoch: int = 0
    block: int | None = None
    window: int | None = None
    weights: npt.NDArray[np.float64] | None = None


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """Options of :class:`Batches`.

    Attributes
    ----------
    batch_size : int
        Samples of a batch.
    forms : mapping of str to Form
        The tensors, and the forms of their values.
    shuffle : Shuffle
        The order of the samples.
    rank, ranks, worker, workers : int
        Numbers of the process and of all processes, and of the loader's worker and all workers.
    start : int
        Position in the order at which the batches begin.
    transform : callable or None
        Called with each sample.
    drop_last : bool
        Whether a last batch with fewer samples is left out.
    read_ahead : int
        Bytes that are read ahead.
    threads : int
        Threads that decode; 0 for the default.
    """

    batch_size: int
    forms: Forms
    shuffle: Shuffle = Shuffle()
    rank: int = 0
    ranks: int = 1
    worker: int = 0
    workers: int = 1
    start: int = 0
    transform: Transform | None = None
    drop_last: bool = False
    read_ahead: int = 256 * 2**20
    threads: int = 0
