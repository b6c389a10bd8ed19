"""Parse and validate filters: Arrow expressions, or Dask's lists of predicates."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from functools import reduce
from itertools import product
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dasklake._read.filter_columns import FilterColumn, arrow_type, class_index, resolve_column
from dasklake._schema.schema import TensorSpec
from dasklake.exceptions import InvalidInputError, VersionNotFoundError

__all__ = ["Condition", "FilterLike", "Term", "parse_filters"]

#: What users may give as a filter.
FilterLike: TypeAlias = (
    pc.Expression | Sequence[tuple[str, str, Any]] | Sequence[Sequence[tuple[str, str, Any]]]
)

_COMPARE: Mapping[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_OPERATORS = ("==", "=", "!=", "<", "<=", ">", ">=", "in", "not in", "is", "is not", "contains")

#: Name of the tensor that Arrow reports as unknown.
_UNKNOWN = re.compile(r"No match for FieldRef\.Name\((.*?)\) in ", re.DOTALL)

#: Errors of Arrow about a value of another type.
_UNFIT = (pa.ArrowException, TypeError, ValueError, OverflowError)

_Schema = Mapping[str, TensorSpec]


class Term(NamedTuple):
    """A comparison of a column.

    Attributes
    ----------
    column : FilterColumn
        The column.
    op : str
        One of ``==``, ``!=``, ``<``, ``<=``, ``>``, ``>=``, ``in``, ``not in``, ``is`` and
        ``is not``. The last two compare with no value. ``!=`` and ``not in`` also select no value.
    value : object
        A scalar of Arrow, an array of Arrow for ``in`` and ``not in``, or None.
    """

    column: FilterColumn
    op: str
    value: Any


class Condition:
    """A validated filter.

    Parameters
    ----------
    expression : pyarrow.compute.Expression
        The filter in terms of the names of the columns.
    columns : mapping of str to FilterColumn
        The columns that it compares.
    types : mapping of str to pyarrow.DataType
        Their types.
    terms : tuple of tuple of Term, or None
        The filter as alternatives, each of which is a conjunction of terms. None if it was given as
        an expression of Arrow.
    text : str
        The filter as it was given.
    """

    def __init__(
        self,
        expression: pc.Expression,
        columns: Mapping[str, FilterColumn],
        types: Mapping[str, pa.DataType],
        terms: tuple[tuple[Term, ...], ...] | None,
        text: str,
    ) -> None:
        self.expression = expression
        self.columns = dict(columns)
        self.types = dict(types)
        self.terms = terms
        self.text = text

    @property
    def tensors(self) -> list[str]:
        """Names of the tensors that are read."""
        return list(dict.fromkeys(column.tensor for column in self.columns.values()))

    def __repr__(self) -> str:
        return self.text

    def __dask_tokenize__(self) -> Any:
        columns = [(name, *column) for name, column in self.columns.items()]
        return ("dasklake-filter", str(self.expression), columns)

    def matches(self, arrays: Mapping[str, pa.Array], rows: int) -> np.ndarray[Any, Any]:
        """Return the offsets of the rows that match, in order.

        Parameters
        ----------
        arrays : mapping of str to pyarrow.Array
            The columns.
        rows : int
            Number of rows.
        """
        number = "row"
        while number in arrays:
            number += "_"
        table = pa.table({**arrays, number: np.arange(rows)})
        offsets: np.ndarray[Any, Any] = table.filter(self.expression)[number].to_numpy()
        return np.sort(offsets)


def parse_filters(filters: Any, schema: _Schema) -> Condition:
    """Validate a filter of the tensors of a version.

    Raises
    ------
    InvalidInputError
        The filter is malformed, or compares a tensor with a value of another type.
    VersionNotFoundError
        It names a tensor that does not exist.
    """
    if isinstance(filters, pc.Expression):
        return _of_expression(filters, schema)
    alternatives = list(_conjunctions(filters))
    terms = tuple(tuple(_term(item, schema) for item in items) for items in alternatives)
    columns = {_name(term.column): term.column for items in terms for term in items}
    types = {name: arrow_type(c, schema[c.tensor]) for name, c in columns.items()}
    expression = reduce(
        operator.or_, (reduce(operator.and_, map(_expression, items)) for items in terms)
    )
    return Condition(expression, columns, types, terms, repr(filters))


def _name(column: FilterColumn) -> str:
    """Return a name of a column that no other one has."""
    return repr(tuple(column))


def _conjunctions(filters: Any) -> Iterator[list[Any]]:
    """Yield the conjunctions of a filter of one or two levels of lists."""
    if not isinstance(filters, list | tuple) or not filters:
        raise _malformed(filters)
    if isinstance(filters[0], str):
        raise _malformed(filters)
    flat = isinstance(filters[0], list | tuple) and filters[0] and isinstance(filters[0][0], str)
    for conjunction in [filters] if flat else filters:
        if not isinstance(conjunction, list | tuple) or not conjunction:
            raise _malformed(filters)
        yield list(conjunction)


def _malformed(filters: Any) -> InvalidInputError:
    return InvalidInputError(
        "A filter must be a list of (tensor, operator, value), such as [('label', '==', 'cat')], a "
        f"list of such lists, or a pyarrow.compute.Expression, got {filters!r}."
    )


def _term(item: Any, schema: _Schema) -> Term:
    if not isinstance(item, list | tuple) or len(item) != 3 or not isinstance(item[0], str):
        raise _malformed(item)
    name, op, value = item
    if op not in _OPERATORS:
        raise InvalidInputError(
            f"The operator of {item!r} must be one of {', '.join(map(repr, _OPERATORS))}, got {op!r}."
        )
    if op == "contains":
        return _contains(name, value, schema)
    column = resolve_column(name, schema)
    spec = schema[column.tensor]
    if op in ("is", "is not"):
        if value is not None and not _is_nan(value):
            raise InvalidInputError(f"{op!r} must compare with None, got {item!r}. Use '=='.")
        return Term(column, op, None)
    if op in ("in", "not in"):
        if isinstance(value, str | bytes) or not isinstance(value, Iterable):
            raise InvalidInputError(f"{op!r} needs a list of values, got {item!r}.")
        return Term(column, op, _literals(column, spec, list(value), item))
    if value is None or value is np.ma.masked:
        raise InvalidInputError(f"{item!r} compares with no value. Use 'is' or 'is not' for None.")
    return _compared(column, "==" if op == "=" else op, spec, value, item)


def _is_nan(value: Any) -> bool:
    return isinstance(value, float | np.floating) and math.isnan(value)


def _contains(name: str, value: Any, schema: _Schema) -> Term:
    """Return the term that one of the items of a tensor is a value."""
    if name not in schema:
        resolve_column(name, schema)  # raises the error that names a similar tensor
        raise InvalidInputError(f"'contains' must compare a tensor, got {name!r}.")
    spec = schema[name]
    item = spec.item if spec.sequence else spec
    plain = value.item() if isinstance(value, np.generic) else value
    if item.kind.name == "class_label" and item.class_names is not None:
        plain = class_index(name, item.class_names, plain)
    numbers = item.kind.codec == "array" and item.numpy_dtype is not None and not item.linked
    several = spec.sequence or spec.shape != ()
    if not several or not (numbers or item.kind.name == "tag"):
        raise InvalidInputError(
            f"'contains' compares the items of labels, tags and arrays of numbers; tensor {name!r} has "
            f"the htype {spec.htype!r} and the shape {spec.shape}. Use another operator."
        )
    expected = int | float | bool if numbers else str
    if not isinstance(plain, expected):
        raise InvalidInputError(
            f"The items of tensor {name!r} are {item.dtype}, got {value!r}. Give a value of that type."
        )
    return Term(FilterColumn(name, "contains", item=plain), "==", pa.scalar(value=True))


def _compared(column: FilterColumn, op: str, spec: TensorSpec, value: Any, item: Any) -> Term:
    """Return a comparison with a value that is exact in the type of the column."""
    kind = arrow_type(column, spec)
    if _compares_integers(column, kind):
        plain = _whole(_plain(value))
        if isinstance(plain, int) and not isinstance(plain, bool):
            return _within(column, op, kind, plain)
        if isinstance(plain, float):
            return _with_float(column, op, kind, plain)
    return Term(column, op, _literal(column, spec, value, item))


def _compares_integers(column: FilterColumn, kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) and column.part != "index"


def _plain(value: Any) -> Any:
    """Return a scalar of numpy or a number of Arrow as a value of Python."""
    if isinstance(value, pa.Scalar):
        kind = value.type
        return value.as_py() if pa.types.is_integer(kind) or pa.types.is_floating(kind) else value
    times = np.datetime64 | np.timedelta64
    return value.item() if isinstance(value, np.generic) and not isinstance(value, times) else value


def _with_float(column: FilterColumn, op: str, kind: pa.DataType, value: float) -> Term:
    """Return a comparison of integers with a fraction, an infinity or NaN, exactly."""
    if op in ("==", "!=") or math.isnan(value):
        return Term(column, "not in" if op == "!=" else "in", pa.array([], kind))
    if math.isinf(value):
        return _within(column, op, kind, 2**64 if value > 0 else -(2**64))
    return _within(column, "<=" if op in ("<", "<=") else ">", kind, math.floor(value))


def _within(column: FilterColumn, op: str, kind: pa.DataType, value: int) -> Term:
    """Return a comparison of integers, also with a number that the type cannot represent."""
    limits = np.iinfo(kind.to_pandas_dtype())
    least, most = pa.scalar(int(limits.min), kind), pa.scalar(int(limits.max), kind)
    if limits.min <= value <= limits.max:
        return Term(column, op, pa.scalar(value, kind))
    if op == "!=":
        return Term(column, "not in", pa.array([], kind))
    above = value > limits.max
    if (op in ("<", "<=") and above) or (op in (">", ">=") and not above):
        return Term(column, ">=", least)  # all that have a value
    return Term(column, ">", most)  # none


def _literal(column: FilterColumn, spec: TensorSpec, value: Any, item: Any) -> Any:
    """Return a value as a scalar that can be compared with a column.

    Raises
    ------
    InvalidInputError
        The value has another type.
    """
    kind = arrow_type(column, spec)
    if column.part == "index":
        return pa.scalar(class_index(column.tensor, spec.class_names or (), value), kind)
    if isinstance(value, np.generic) and not isinstance(value, np.datetime64 | np.timedelta64):
        value = value.item()
    if pa.types.is_decimal(kind) and isinstance(value, int | float) and not isinstance(value, bool):
        value = Decimal(value)
    try:
        if (
            _compares_integers(column, kind)
            and isinstance(value, int)
            and not isinstance(value, bool)
        ):
            return pa.scalar(value, kind)  # by itself, Arrow takes an integer for an int64
        scalar = value if isinstance(value, pa.Scalar) else pa.scalar(value)
        pa.table({"x": pa.array([], kind)}).filter(pc.field("x") == scalar)
    except _UNFIT as error:
        raise _unfit(column, kind, value, item) from error
    return scalar


def _literals(column: FilterColumn, spec: TensorSpec, values: list[Any], item: Any) -> pa.Array:
    """Return the values of ``in`` as an array of the type of a column; None means no value."""
    kind = arrow_type(column, spec)
    if _compares_integers(column, kind):
        whole = [_whole(_plain(value)) for value in values]
        values = [value for value in whole if not _is_beyond(value, kind)]
    scalars = [None if value is None else _literal(column, spec, value, item) for value in values]
    try:
        exact = [None if scalar is None else _cast(scalar, kind) for scalar in scalars]
    except _UNFIT as error:
        raise _unfit(column, kind, values, item) from error
    plain = [v if v is None else v.as_py() for v in exact if v is not _NEVER]
    if pa.types.is_floating(kind) and 0 in plain:
        plain += [0.0, -0.0]  # Arrow distinguishes them in lists, although they are equal
    return pa.array(plain, kind)


def _is_beyond(value: Any, kind: pa.DataType) -> bool:
    """Return whether a value is an integer that a type of integers cannot represent."""
    if isinstance(value, bool) or not isinstance(value, int):
        return False
    limits = np.iinfo(kind.to_pandas_dtype())
    return not limits.min <= value <= limits.max


#: A value that no value of a tensor equals.
_NEVER = pa.scalar("never")


def _cast(scalar: pa.Scalar, kind: pa.DataType) -> pa.Scalar:
    """Return a value in the type of a column without loss."""
    if pa.types.is_floating(kind) and pa.types.is_floating(scalar.type):
        cast = scalar.cast(kind)
        exact = cast.as_py() == scalar.as_py() or math.isnan(scalar.as_py())
        return cast if exact else _NEVER
    return scalar.cast(kind)


def _whole(value: Any) -> Any:
    """Return a float without a fraction as an integer."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _unfit(column: FilterColumn, kind: pa.DataType, value: Any, item: Any) -> InvalidInputError:
    return InvalidInputError(
        f"{item!r} compares {column.tensor!r}, whose values are {kind}, with {value!r} of type "
        f"{type(value).__name__}. Give a value of the tensor's type."
    )


def _expression(term: Term) -> pc.Expression:
    """Return a term as an expression, in which no value is treated as Dask does."""
    field = pc.field(_name(term.column))
    missing = field.is_null(nan_is_null=True)
    if term.op == "is":
        return missing
    if term.op == "is not":
        return ~missing
    if term.op == "in":
        return field.isin(term.value)
    if term.op == "not in":
        return missing | ~field.isin(term.value)
    compared = _COMPARE[term.op](field, pc.scalar(term.value))
    return missing | compared if term.op == "!=" else compared


def _of_expression(expression: pc.Expression, schema: _Schema) -> Condition:
    """Find the columns of an expression of Arrow, and whether labels are names or indices."""
    columns: dict[str, FilterColumn] = {}
    error: Exception | None = None
    while True:
        labels = [name for name, column in columns.items() if column.part == "index"]
        for parts in product(("name", "index"), repeat=min(len(labels), 8)):
            chosen = columns | {
                name: columns[name]._replace(part=part)  # type: ignore[arg-type] # one of two
                for name, part in zip(labels, parts, strict=False)
            }
            types = {name: arrow_type(c, schema[c.tensor]) for name, c in chosen.items()}
            table = pa.table({name: pa.array([], kind) for name, kind in types.items()})
            try:
                table.filter(expression)
            except (pa.ArrowException, TypeError) as reason:
                error = reason
                if _UNKNOWN.search(str(reason)):
                    break
            else:
                return Condition(expression, chosen, types, None, str(expression))
        unknown = _UNKNOWN.search(str(error))
        if unknown is None or unknown[1] in columns:
            raise InvalidInputError(
                f"The expression {expression} does not fit the tensors: {error}. Compare each tensor "
                "with values of its type."
            ) from error
        try:
            columns[unknown[1]] = resolve_column(unknown[1], schema)
        except (VersionNotFoundError, InvalidInputError) as reason:
            raise reason from error
