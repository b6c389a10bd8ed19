"""A sample behaves like a dict, decodes on first access, and keeps what is stored."""

from __future__ import annotations

import copy
import gc
import json
import pickle
from typing import Any

import numpy as np
import pytest
from dask.sizeof import sizeof
from dask.tokenize import tokenize

from dasklake._codecs.decoded_origins import _origins, origin_of
from dasklake._codecs.registry import codec_for
from dasklake._codecs.same_values import is_same
from dasklake._codecs.sample import Sample, StoredValue, raw_value, sealed
from dasklake._codecs.transfer import encode_value
from dasklake._read.decoder import Decoder
from dasklake._schema.schema import TensorSpec

SPECS = {
    "pixels": TensorSpec("image", compression="png"),
    "document": TensorSpec("json"),
    "number": TensorSpec(dtype="int64", shape=()),
}
PIXELS = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)


class Counting(Decoder):
    """Count what is decoded."""

    decoded: list[str]

    def decode(self, name: str, stored: Any, sample: int) -> Any:
        """Decode and count."""
        self.__dict__.setdefault("decoded", []).append(name)
        return super().decode(name, stored, sample)


def make() -> tuple[Sample, Counting]:
    """Make a sample of three tensors, and its decoder."""
    decoder = Counting(SPECS, {})
    given = {"pixels": PIXELS, "document": {"a": [1]}, "number": 7}
    stored = [codec_for(spec).encode(given[name]) for name, spec in SPECS.items()]
    sample = decoder.sample(SPECS, stored, 3)
    decoder.decoded = []
    return sample, decoder


def is_stored(sample: Sample, name: str) -> bool:
    """Return whether a tensor still has its stored value."""
    value = raw_value(sample, name)
    return isinstance(value, StoredValue) and value.is_unchanged()


def as_keyword_arguments(sample: Sample) -> dict[str, Any]:
    """Pass a sample as keyword arguments."""

    def collect(**values: Any) -> dict[str, Any]:
        return values

    return collect(**sample)


def plain() -> dict[str, Any]:
    """Return the same values as a plain dict, without arrays, which cannot be compared."""
    return {"document": {"a": [1]}, "number": 7}


def test_values_are_decoded_on_first_access_only() -> None:
    """Names, lengths and copies decode nothing; a value is the same object every time."""
    sample, decoder = make()
    assert (list(sample), len(sample), "pixels" in sample) == (list(SPECS), 3, True)
    other = sample.copy() | {"number": 8}
    assert decoder.decoded == []
    assert sample["document"] is sample["document"]
    assert decoder.decoded == ["document"]
    assert (other["number"], is_stored(other, "pixels")) == (8, True)


@pytest.mark.parametrize(
    "read",
    [
        dict,
        lambda s: {**s},
        lambda s: dict(s.items()),
        lambda s: dict(zip(s.keys(), s.values(), strict=True)),
        lambda s: {} | s,
        as_keyword_arguments,
        lambda s: {name: s.get(name) for name in s},
        lambda s: {name: s.pop(name) for name in list(s)},
        lambda s: dict(reversed([s.popitem() for _ in range(len(s))])),
        lambda s: {name: s.setdefault(name) for name in s},
        copy.copy,
        copy.deepcopy,
        lambda s: pickle.loads(pickle.dumps(s)),
    ],
)
def test_every_way_of_reading_gives_decoded_values(read: Any) -> None:
    """No way of reading a dict hands out an undecoded value."""
    values = dict(read(make()[0]))
    assert np.array_equal(values.pop("pixels"), PIXELS)
    assert values == plain()
    assert not any(isinstance(value, StoredValue) for value in values.values())


def test_a_sample_behaves_like_a_dict() -> None:
    """Comparison, repr, JSON and missing names are those of a dict."""
    sample = make()[0]
    del sample["pixels"]
    assert sample == plain()
    assert plain() == sample
    assert sample != {**plain(), "number": 8}
    assert repr(sample) == repr(dict(sample))
    assert json.dumps(sample | {"number": 7}) == json.dumps(plain())
    with pytest.raises(KeyError, match="lost"):
        _ = sample["lost"]
    with pytest.raises(KeyError, match="lost"):
        sample.pop("lost")
    assert (sample.get("lost"), sample.pop("lost", 5)) == (None, 5)
    with pytest.raises(TypeError, match="unhashable"):
        _ = {sample: 1}
    with pytest.raises(TypeError):
        _ = sample | [("a", 1)]
    sample |= {"b": 1}
    assert sample.pop("b") == 1
    sample.clear()
    assert sample == {}
    with pytest.raises(KeyError, match="empty"):
        sample.popitem()


def test_only_replaced_tensors_lose_their_stored_value() -> None:
    """Setting, updating and deleting concern the named tensors alone."""
    sample, _ = make()
    sample.update(document={"b": 2})
    sample["number"] = 9
    assert is_stored(sample, "pixels")
    assert (sample["document"], sample["number"]) == ({"b": 2}, 9)
    merged = {"pixels": 1, "extra": 2} | make()[0]
    assert is_stored(merged, "pixels")
    assert merged["extra"] == 2


def test_changes_in_place_are_noticed() -> None:
    """A changed array or document is no longer what is stored, nor after copies and pickles."""
    sample, _ = make()
    assert sample["pixels"].sum()
    assert sample["document"]
    assert is_stored(sample, "pixels")
    assert is_stored(sample, "document")
    before = sealed(sample, copy.deepcopy)
    sample["pixels"][0, 0, 0] = 99
    sample["document"]["a"].append(2)
    assert not is_stored(sample, "pixels")
    assert not is_stored(sample, "document")
    for later in (sample.copy(), copy.deepcopy(sample), pickle.loads(pickle.dumps(sample))):
        assert not is_stored(later, "pixels")
        assert (later["pixels"][0, 0, 0], later["document"]) == (99, {"a": [1, 2]})
    assert (before["pixels"][0, 0, 0], before["document"]) == (0, {"a": [1]})


def test_pickles_hold_what_is_stored() -> None:
    """A pickled sample has its encoded bytes and not its pixels, even after decoding."""
    sample, _ = make()
    assert sample["pixels"].any()
    restored = pickle.loads(pickle.dumps(sample))
    assert bytes(raw_value(restored, "pixels").stored.data) == bytes(
        raw_value(sample, "pixels").stored.data
    )
    assert not raw_value(restored, "pixels").is_decoded


def test_dask_measures_and_identifies_samples_without_decoding() -> None:
    """The size counts stored bytes; the token depends on what is stored or was changed."""
    sample, decoder = make()
    size = len(raw_value(sample, "pixels").stored.data)
    assert size < sizeof(sample)
    token = tokenize(sample)
    assert decoder.decoded == []
    assert token == tokenize(make()[0])
    undecoded = sizeof(sample)
    sample["pixels"][:] = 0
    assert sizeof(sample) >= undecoded + PIXELS.nbytes
    assert tokenize(sample) != token


def test_origins_live_as_long_as_the_decoded_object() -> None:
    """A decoded array has an origin until it is deleted; a copy of it has none."""
    codec = codec_for(SPECS["pixels"])
    stored = codec.encode(PIXELS)
    pixels: Any = codec.decode(stored)
    origin = origin_of(pixels)
    assert origin is not None
    assert origin.stored is stored
    assert origin_of(pixels.copy()) is None
    gc.collect()  # objects of other tests
    before = len(_origins)
    del pixels
    gc.collect()
    assert len(_origins) == before - 1


def test_a_decoded_array_is_encoded_again_after_a_change() -> None:
    """An array from a lake is written as stored, and as changed after a change in place."""
    codec = codec_for(TensorSpec("image", compression="jpeg"))
    stored = codec.encode(PIXELS)
    pixels: Any = codec.decode(stored)
    assert encode_value(pixels, codec).data == stored.data
    pixels[0] = 255
    assert encode_value(pixels, codec).data != stored.data


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, True),
        (0.0, -0.0),
        ([1], (1,)),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        (np.zeros(2, "i4"), np.zeros(2, "i8")),
        (np.zeros(2), np.array([0.0, -0.0])),
        (np.zeros((1, 2)), np.zeros((2, 1))),
        (np.array(["a", None], object), np.array(["a", 1], object)),
    ],
)
def test_values_that_only_look_equal_are_different(one: Any, other: Any) -> None:
    """Types, order, signs and shapes count."""
    assert not is_same(one, other)
    assert is_same(one, copy.deepcopy(one))
