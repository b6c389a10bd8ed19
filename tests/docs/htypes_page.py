"""The tables of docs/reference/htypes.md, made from the table of htypes and from real errors.

``python -m tests.docs.htypes_page`` writes them into the page.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np

from dasklake._codecs.registry import codec_for
from dasklake._schema.htypes import COMPRESSION_ALIASES, HTYPES, Htype
from dasklake.exceptions import SampleError
from tests.support.htypes import MISFITS, Misfit

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "htypes.md"


def written(page: str) -> str:
    """Return a page with regenerated tables."""
    for name, make in TABLES.items():
        begin, end = f"<!-- {name}: made by tests/docs/htypes_page.py -->\n", "\n<!-- end -->"
        pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
        text = f"{begin}\n{make()}\n{end}"
        page, count = pattern.subn(lambda _, text=text: text, page)  # type: ignore[misc] # a lambda
        if count != 1:
            raise ValueError(f"the page has {count} places for the table {name!r}")
    return page


def _htypes() -> str:
    head = ("htype", "what it holds", "default dtype", "default shape")
    rows = [
        (
            f"`{htype.name}`",
            htype.summary.rstrip("."),
            _dtype(htype),
            _shape(htype),
            _compressions(htype),
            ", ".join(f"`{parameter}`" for parameter in htype.parameters),
        )
        for htype in HTYPES.values()
    ]
    return _table((*head, "compressions, the default first", "parameters"), rows)


def _shape(htype: Htype) -> str:
    if htype.shape is None:
        return f"any of rank {' or '.join(map(str, htype.ranks))}" if htype.ranks else "any"
    return f"`{htype.shape}`"


def _dtype(htype: Htype) -> str:
    if htype.dtype is not None:
        return f"`{htype.dtype}`"
    return "the file's" if htype.codec == "file" else "none: give one"


def _compressions(htype: Htype) -> str:
    names = [
        "none" if compression is None else f"`{compression}`" for compression in htype.compressions
    ]
    if not htype.must_compress or len(names) == 1:
        return ", ".join(names)
    return f"choose {', '.join(names[:-1])} or {names[-1]}"


def _libraries() -> str:
    """Return the table of extras and the formats that they read."""
    rows: dict[tuple[str, str], list[str]] = {}
    for htype in HTYPES.values():
        if htype.extra and htype.decoder:
            files = rows.setdefault((htype.extra, htype.decoder), [])
            files += [f"`{format_}`" for format_ in htype.files if f"`{format_}`" not in files]
    lines = [(f"`{extra}`", library, ", ".join(f)) for (extra, library), f in rows.items()]
    aliases = (f"`{k}` for {f'`{v}`' if v else 'none'}" for k, v in COMPRESSION_ALIASES.items())
    return (
        _table(("extra", "library", "formats"), lines)
        + f"\n\nOther spellings: {', '.join(aliases)}."
    )


def _misfits() -> str:
    head = ("htype", "rule", "spec", "value", "message")
    rows = []
    for misfit in MISFITS:
        rule = misfit.rule + (" *(strict)*" if misfit.strict else "")
        spec, value = f"`{misfit.spec}`", f"`{misfit.value}`"
        rows.append((f"`{misfit.htype}`", rule, spec, value, message_of(misfit)))
    return _table(head, rows)


def message_of(misfit: Misfit) -> str:
    """Return the error message for a value that breaks a rule."""
    spec, value = misfit.make()
    try:
        codec_for(spec).encode(value)
    except SampleError as error:
        return error.message
    raise ValueError(f"{misfit} must raise an error")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", r"\|").split()) or " "


TABLES: Mapping[str, Callable[[], str]] = MappingProxyType(
    {"htypes": _htypes, "libraries": _libraries, "rules": _misfits}
)


def main() -> None:
    """Write the page."""
    with np.printoptions(threshold=8):
        PAGE.write_text(written(PAGE.read_text()))


if __name__ == "__main__":
    main()
