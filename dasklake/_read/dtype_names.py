"""Names of the dtypes of columns of stored values, such as ``tensor[image, compression='jpeg']``."""

from __future__ import annotations

import ast
from dataclasses import replace
from functools import lru_cache

from dasklake._schema.schema import TensorSpec, describe
from dasklake.exceptions import SchemaError

__all__ = ["name_of", "spec_of_name"]

_PREFIX = "tensor["


def name_of(spec: TensorSpec) -> str:
    """Return the name of a dtype: its htype, and the parameters that are not defaults.

    Class names are left out. A column may have thousands of them.
    """
    plain = replace(
        spec,
        class_names=None,
        discover=False,
        ordered=False,
        settled=None,
        # Explicit, because a missing compression means the default of the htype.
        compression=spec.compression or "none",
    )
    text = describe(plain).removeprefix("TensorSpec(").removesuffix(")")
    return f"{_PREFIX}{text.replace(repr(spec.htype), spec.htype, 1)}]"


def spec_of_name(name: str) -> TensorSpec:
    """Return the spec of a name, without class names.

    Raises
    ------
    ValueError
        ``name`` is not the name of such a dtype.
    """
    if not name.startswith(_PREFIX) or not name.endswith("]"):
        raise ValueError(f"the name of the dtype must be like 'tensor[image]', got {name!r}")
    return _parsed(name)


@lru_cache(maxsize=256)
def _parsed(name: str) -> TensorSpec:
    htype, _, parameters = name[len(_PREFIX) : -1].partition(", ")
    try:
        call = ast.parse(f"f({parameters})", mode="eval").body
        if not isinstance(call, ast.Call) or call.args:
            raise ValueError(name)  # noqa: TRY301 # one handler for all problems
        values = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
        return TensorSpec(htype, **values)
    except (SyntaxError, ValueError, TypeError, SchemaError) as error:
        raise ValueError(f"{name!r} is not the name of a dtype ({error})") from error
