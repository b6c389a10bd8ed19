"""The credentials keys of a lake: names, never values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CredsKey:
    """A credentials key of a lake.

    Attributes
    ----------
    managed : bool
        Whether every process finds its values by itself, so that users never set them.
    former : tuple of str
        Its earlier names, which older links still have.
    """

    managed: bool = False
    former: tuple[str, ...] = ()


def current_key_names(keys: Mapping[str, CredsKey]) -> dict[str, str]:
    """Return the current name of each former one."""
    return {former: name for name, key in keys.items() for former in key.former}
