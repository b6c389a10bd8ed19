"""The document of a heartbeat, which is advisory: a damaged one counts as none."""

from __future__ import annotations

import json

import msgspec

from dasklake._format.validate import validate
from dasklake._model.stored_types import Count


class Heartbeat(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A sign of life that a coordinator writes from time to time; advisory only.

    Attributes
    ----------
    epoch : int
        The epoch it coordinates.
    coordinator : str
        Its random name.
    counter : int
        Increases with every heartbeat. Readers compare two reads and never use a clock.
    state : str
        ``"running"``, or the outcome of the run.
    inputs : int
        Input samples whose partitions are written, committed or not.
    failures : int
        Samples that failed.
    trouble : str
        Reason for late commits while the storage fails, else empty.
    """

    epoch: Count
    coordinator: str
    counter: Count
    state: str = "running"
    inputs: Count = 0
    failures: Count = 0
    trouble: str = ""


def heartbeat_bytes(heartbeat: Heartbeat) -> bytes:
    """Return the object of a heartbeat."""
    return json.dumps(msgspec.structs.asdict(heartbeat), separators=(",", ":")).encode()


def read_heartbeat(data: bytes) -> Heartbeat | None:
    """Decode a heartbeat, or return None if it is torn or foreign."""
    try:
        return validate(json.loads(data), Heartbeat)
    except (ValueError, RecursionError):
        return None
