"""The dtype of columns of stored values, for pandas and for Arrow."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa
from pandas.api.extensions import ExtensionDtype, register_extension_dtype

from dasklake._codecs.registry import Codec, codec_for
from dasklake._media.file import File
from dasklake._read.dtype_names import name_of, spec_of_name
from dasklake._read.stored_column import Part
from dasklake._schema.arrow_layout import storage_of
from dasklake._schema.lake_tensors import LakeDtype
from dasklake._schema.schema import Schema, TensorSpec, describe
from dasklake._schema.values import Link

__all__ = ["TensorDtype", "TensorType", "arrow_column"]

#: Name of the Arrow extension type.
_ARROW_NAME = "dasklake.tensor"


@register_extension_dtype
class TensorDtype(ExtensionDtype, LakeDtype):  # type: ignore[misc] # pandas has no types
    """Type of a column of a frame whose values are stored as in a lake.

    A value is decoded when it is asked for: an array, a document, a link, or what the htype of the
    tensor has. Selecting, joining, pickling and writing rows decode nothing.

    Parameters
    ----------
    spec : TensorSpec or str
        Description of the values: a spec, or an htype that needs no further parameters. The
        properties that a tensor has only in a schema are left out: ``same_length``, ``optional``
        and ``index``.

    Raises
    ------
    SchemaError
        ``spec`` is not valid.

    Examples
    --------
    A column of boxes, one array of shape (objects, 4) and dtype float32 in each row:

    >>> import pandas as pd
    >>> import dasklake
    >>> dtype = dasklake.TensorDtype("bbox")
    >>> column = pd.Series([[[1, 2, 3, 4]], None, []], dtype=dtype)
    >>> column
    0    <bbox 1x4>
    1          <NA>
    2    <bbox 0x4>
    dtype: tensor[bbox]
    >>> column[0]
    array([[1., 2., 3., 4.]], dtype=float32)
    """

    na_value = pd.NA
    kind = "O"
    _metadata = ("spec",)

    #: The class of the arrays, whose module sets it.
    array_type: ClassVar[Any]

    def __init__(self, spec: Any) -> None:
        spec = spec if isinstance(spec, TensorSpec) else Schema({"value": spec})["value"]
        # Explicit, because a missing compression means the default of the htype.
        self._spec: TensorSpec = replace(
            spec,
            same_length=None,
            optional=False,
            index=False,
            compression=spec.compression or "none",
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return TensorDtype, (self._spec,)

    @property
    def spec(self) -> TensorSpec:
        """Description of the values."""
        return self._spec

    @cached_property
    def name(self) -> str:
        """Name of the dtype, without the class names of the values."""
        return name_of(self._spec)

    @property
    def type(self) -> type[Any]:
        """Class of a value."""
        spec: TensorSpec = self._spec
        if spec.linked:
            return Link
        if spec.sequence or spec.kind.codec == "polygon" or spec.kind.name in ("tag", "list"):
            return list
        if spec.encoded and spec.kind.codec != "image":
            return File
        return np.ndarray if spec.shape != () and spec.numpy_dtype is not None else object

    @classmethod
    def construct_array_type(cls) -> Any:
        """Return the class of the arrays."""
        return cls.array_type

    @classmethod
    def construct_from_string(cls, string: str) -> TensorDtype:
        """Return the dtype of a name, such as ``"tensor[bbox]"``.

        Parameters
        ----------
        string : str
            The name.

        Returns
        -------
        TensorDtype
            The dtype, without class names.

        Raises
        ------
        TypeError
            ``string`` is not a name of this dtype.
        """
        if not isinstance(string, str):
            raise TypeError(f"'construct_from_string' expects a string, got {type(string)}")
        try:
            return cls(spec_of_name(string))
        except ValueError as error:
            raise TypeError(f"Cannot construct a '{cls.__name__}' from '{string}'") from error

    def __from_arrow__(self, array: pa.Array | pa.ChunkedArray) -> Any:
        chunks = array.chunks if isinstance(array, pa.ChunkedArray) else [array]
        return self.array_type(tuple(_from_arrow(chunk, self._spec) for chunk in chunks), self)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str):
            return self.name == other
        return other is self or (isinstance(other, TensorDtype) and self._spec == other.spec)

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return f"TensorDtype({describe(self._spec)})"

    @cached_property
    def codec(self) -> Codec:
        """Encoder and decoder of the values."""
        return codec_for(self._spec)


class TensorType(pa.ExtensionType):  # type: ignore[misc] # Arrow has no types
    """Arrow type of columns of :class:`TensorDtype`, for Parquet and for shuffles of Dask.

    Parameters
    ----------
    spec : TensorSpec
        Description of the values.
    """

    def __init__(self, spec: TensorSpec) -> None:
        self._spec = spec
        storage = storage_of(spec)
        value = storage.type
        value = value.storage_type if isinstance(value, pa.BaseExtensionType) else value
        fields = [("value", value)]
        if storage.shape_type is not None:
            # Not of fixed size: Arrow before 19 cannot read those with missing values from Parquet.
            fields.append(("shape", pa.list_(pa.int64())))
        super().__init__(pa.struct(fields), _ARROW_NAME)

    def __arrow_ext_serialize__(self) -> bytes:
        return json.dumps(self._spec.to_json(), sort_keys=True).encode()

    @classmethod
    def __arrow_ext_deserialize__(cls, storage_type: Any, serialized: bytes) -> TensorType:
        del storage_type
        return cls(TensorSpec.from_json(json.loads(serialized)))

    def __reduce__(self) -> tuple[Any, ...]:
        return TensorType, (self._spec,)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TensorType):
            return NotImplemented
        return self.__arrow_ext_serialize__() == other.__arrow_ext_serialize__()

    def __hash__(self) -> int:
        return hash(self.__arrow_ext_serialize__())

    def to_pandas_dtype(self) -> TensorDtype:
        """Return the dtype of pandas."""
        return TensorDtype(self._spec)


pa.register_extension_type(TensorType(TensorSpec("json")))


def arrow_column(part: Part, spec: TensorSpec) -> pa.Array:
    """Return stored values as an array of :class:`TensorType`."""
    column, shapes = part
    kind = TensorType(spec)
    plain = column.storage if isinstance(column, pa.ExtensionArray) else column
    mask = column.is_null() if column.null_count else None
    parts = [plain]
    if shapes is not None:
        axes = shapes.cast(pa.list_(pa.int64()))
        if mask is not None:
            # Arrow before 19 does not write lists to Parquet that are hidden by missing values.
            rows = zip(axes.to_pylist(), mask.to_pylist(), strict=True)
            axes = pa.array([None if no else shape for shape, no in rows], axes.type)
        parts.append(axes)
    rows = pa.StructArray.from_arrays(parts, fields=list(kind.storage_type), mask=mask)
    return pa.ExtensionArray.from_storage(kind, rows)


def _from_arrow(array: pa.Array, spec: TensorSpec) -> Part:
    """Return the stored values of an array of :class:`TensorType`."""
    rows = array.storage
    column = rows.field("value")
    kind = storage_of(spec)
    if isinstance(kind.type, pa.BaseExtensionType):
        column = pa.ExtensionArray.from_storage(kind.type, column)
    if kind.shape_type is None:
        return column, None
    shapes = rows.field("shape")
    rank = kind.shape_type.list_size if pa.types.is_fixed_size_list(kind.shape_type) else 0
    if shapes.null_count:
        # Parquet has no shapes of missing values.
        values = [[0] * rank if shape is None else shape for shape in shapes.to_pylist()]
        return column, pa.array(values, kind.shape_type)
    if rank:
        shapes = pa.FixedSizeListArray.from_arrays(shapes.flatten(), type=kind.shape_type)
    return column, shapes
