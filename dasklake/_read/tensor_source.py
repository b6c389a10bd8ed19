"""Decode the stored values of a column of a frame."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from dasklake._codecs.decoded_origins import remember
from dasklake._links.limits import LinkLimits
from dasklake._read.chunk_reader import MALFORMED
from dasklake._read.linked_values import linked
from dasklake._read.tensor_dtype import TensorDtype
from dasklake._schema.schema import TensorSpec
from dasklake._schema.values import Link
from dasklake.exceptions import CorruptionError, LakeError, SampleError

__all__ = ["TensorSource"]


class TensorSource:
    """The column that stored values come from, which decodes them.

    Parameters
    ----------
    dtype : TensorDtype
        Type of the column.
    limits : LinkLimits or None
        Limits for reading the targets of links.
    """

    def __init__(self, dtype: TensorDtype, limits: LinkLimits | None) -> None:
        self._dtype = dtype
        self._limits = limits

    def __reduce__(self) -> tuple[Any, ...]:
        return TensorSource, (self._dtype, self._limits)

    def spec(self, name: str) -> TensorSpec:
        """Return the description of the values."""
        del name
        return self._dtype.spec

    def decode(self, name: str, value: Any, sample: int) -> Any:
        """Decode a stored value.

        Raises
        ------
        SampleError
            The bytes are undamaged but cannot be decoded.
        CorruptionError
            The bytes are not a value of the dtype.
        """
        del name
        spec, codec = self._dtype.spec, self._dtype.codec
        where = f"value {sample} of a column of {self._dtype}"
        try:
            decoded = codec.decode(value)
        except SampleError as error:
            raise SampleError(f"{where}: {error.message}") from error
        except CorruptionError as error:
            raise CorruptionError(f"V{where[1:]}: {error}") from error
        except LakeError:
            raise
        except MALFORMED as error:
            raise CorruptionError(
                f"V{where[1:]} does not match its dtype ({error}). Read the frame again. If the "
                "chunk was changed, `dasklake verify` reports its name."
            ) from error
        if isinstance(decoded, Link):
            link = linked(spec, value, {}, self._limits)
            remember(link, value, codec)
            return link
        if isinstance(decoded, list) and decoded and isinstance(decoded[0], Link):
            return [linked(spec, asdict(link), {}, self._limits) for link in decoded]
        return decoded
