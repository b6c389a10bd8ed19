"""The credentials keys of a lake: names, never values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["CredsKey", "current_key_names"]


@dataclass(frozen=True, slots=True)
class CredsKey:
    """What a lake knows of a credentials key.

    Attributes
    ----------
    managed : bool
        Whether every process finds its values by itself, so that none are ever given by hand.
    former : tuple of str
        Names it had, which links that were written then still have.
    """

    managed: bool = False
    former: tuple[str, ...] = ()


def current_key_names(keys: Mapping[str, CredsKey]) -> dict[str, str]:
    """Return the present name of each former one."""
    return {former: name for name, key in keys.items() for former in key.former}
