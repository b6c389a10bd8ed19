"""Test the bytes that parts of values cost, their errors, and parts of lists and files."""

from __future__ import annotations

import pickle
from typing import Any

import dask.array as da
import numpy as np
import pytest

import dasklake
from dasklake import Lake, Schema, TensorSpec
from dasklake._storage.store import ObjectStore
from dasklake.exceptions import CorruptionError, CorruptionWarning, InvalidInputError
from tests.support import media
from tests.support.counting import CountingFileSystem
from tests.support.samples import Make, same

_RANDOM = np.random.default_rng(0)

#: 100 planes of 160 kB.
VOLUME = _RANDOM.integers(0, 2**16, (100, 200, 400), "u2")

LAYOUTS = {
    "fixed": TensorSpec(dtype="uint16", shape=VOLUME.shape),
    "ragged": TensorSpec(dtype="uint16", shape=(None, None, None)),
    "any": TensorSpec(dtype="uint16"),
}


def _bytes_read(files: type[CountingFileSystem]) -> int:
    return sum(size for path, size in files.reads if "/data/" in path)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_plane_of_a_volume_costs_its_share(
    layout: str, make_lake: Make, counting_files: type[CountingFileSystem]
) -> None:
    """One of 100 planes costs about 1/100 of the bytes, in samples of any layout."""
    schema = Schema({"volume": LAYOUTS[layout]})
    samples = [{"volume": VOLUME}, {"volume": None}, {"volume": VOLUME[::-1]}]
    store = make_lake(schema, [[samples]], ObjectStore("counted://volumes"))
    tensor = dasklake.open(store.url)["volume"]
    assert tensor[1, 40:50] is None  # fetches head and offsets
    index: Any
    for index, planes in [
        ((40,), 1),
        ((slice(45, 46),), 1),
        ((slice(10, 20), 3), 10),
        ((slice(60, None, 10),), 4),
        ((-1, slice(0, 8)), 1),
    ]:
        counting_files.reset()
        part = tensor[2, *index]
        assert same(part, VOLUME[::-1][index])
        # The pages of 16 KiB at both ends of each piece come on top.
        assert part.nbytes <= _bytes_read(counting_files) <= part.nbytes + planes * 2 * 16_384
    counting_files.reset()
    assert same(tensor[2, 40], VOLUME[::-1][40])
    assert _bytes_read(counting_files) == 0
    counting_files.reset()
    parts = tensor[[0, 2], 7:9, :2]
    assert same(parts, np.stack([VOLUME[7:9, :2], VOLUME[::-1][7:9, :2]]))
    assert _bytes_read(counting_files) <= 4 * 2 * 16_384


def test_an_item_of_a_list_costs_its_bytes(
    make_lake: Make, counting_files: type[CountingFileSystem]
) -> None:
    """Of a list of pictures, only the selected ones are fetched, decoded and cropped."""
    frames = [_RANDOM.integers(0, 256, (64, 64 + n, 3), "u1") for n in range(40)]
    schema = Schema({"frames": TensorSpec("sequence[image]", compression="png")})
    samples = [{"frames": frames}, {"frames": []}, {"frames": None}]
    store = make_lake(schema, [[samples]], ObjectStore("counted://frames"))
    tensor = dasklake.open(store.url)["frames"]
    assert tensor[1, :] == []
    counting_files.reset()
    assert same(tensor[0, 30], frames[30])
    assert 64 * 94 * 3 < _bytes_read(counting_files) <= 64 * 94 * 3 + 3 * 8192
    assert same(tensor[0, -1, :5, 3], frames[-1][:5, 3])
    assert all(map(same, tensor[0, 4:10:2, ..., 0], [f[..., 0] for f in frames[4:10:2]]))
    assert all(map(same, tensor[0, ..., :2], [frame[..., :2] for frame in frames]))
    both = tensor[[2, 0], 0:2]
    assert both[0] is None
    assert all(map(same, both[1], frames[:2]))
    item = tensor[0, 3]
    item[...] = 0
    assert same(tensor[0, 3], frames[3])
    with pytest.raises(IndexError, match=r"Index 0 .* sample 1 of tensor 'frames'.* \(0,\)"):
        tensor[1, 0]
    with pytest.raises(IndexError, match=r"Index 64 .* axis 0 of sample 0 .* \(64, 67, 3\)"):
        tensor[0, 3, 64]


def test_lists_of_other_items(make_lake: Make) -> None:
    """Items of numbers, text and files can be selected; those with axes also cropped."""
    specs = {
        "vectors": TensorSpec("sequence[embedding]", shape=(3,)),
        "words": TensorSpec("sequence[text]"),
        "sounds": TensorSpec("sequence[audio]", compression="wav"),
        "links": TensorSpec("sequence[link[image]]"),
        "rings": TensorSpec("polygon"),
    }
    link = dasklake.link("s3://bucket/a.jpg")
    sample = {
        "vectors": [np.arange(3, dtype="f4") + n for n in range(4)],
        "words": ["a", "b", "c"],
        "sounds": [media.sound("wav")],
        "links": [link, link],
        "rings": [np.ones((5, 2), "f4"), np.zeros((3, 2), "f4")],
    }
    lake = dasklake.open(make_lake(Schema(specs), [[[sample]]]).url)
    assert lake["vectors"][0, 1:, 2][1] == 4
    assert lake["words"][0, ::-1] == ["c", "b", "a"]
    assert lake["words"][0, 1] == "b"
    assert same(lake["sounds"][0, 0, 10:20], lake["sounds"][0][0].numpy()[10:20])
    assert lake["links"][0, 1].url == link.url
    assert lake["rings"][0, 1, :, 1].tolist() == [0, 0, 0]
    with pytest.raises(InvalidInputError, match="'words' have no axes"):
        lake["words"][0, 0, 0]
    with pytest.raises(InvalidInputError, match="links"):
        lake["links"][0, 0, 0]


def test_frames_of_a_video(make_lake: Make) -> None:
    """Files decode the selected frames; a sound is indexed by its samples and channels."""
    specs = {
        "video": TensorSpec("video", compression="mp4"),
        "sound": TensorSpec("audio", compression="wav"),
    }
    sample = {"video": media.video("mp4"), "sound": media.sound("wav")}
    lake = dasklake.open(make_lake(Schema(specs), [[[sample]]]).url)
    frames = lake["video"][0].numpy()
    assert same(lake["video"][0, 2:4, 10:, ::2, 1], frames[2:4, 10:, ::2, 1])
    assert same(lake["video"][0, -1], frames[-1])
    assert same(lake["video"][:, ..., 0][0], frames[..., 0])
    assert same(lake["sound"][0, 5:0:-1], lake["sound"][0].numpy()[5:0:-1])
    with pytest.raises(IndexError, match="sample 0 of tensor 'video'"):
        lake["video"][0, len(frames)]


def test_labels_of_several_lists_of_names(tmp_path: Any) -> None:
    """Parts of labels have the indices of the version, not those of their chunk."""
    lake = dasklake.empty(tmp_path / "labels")
    lake.create_tensor("label", htype="class_label", shape=(None,), discover=True)
    lake.extend([{"label": ["b", "a", "b"]}])
    lake.extend([{"label": ["a", "c", "b"]}])
    names = lake["label"].spec.class_names
    assert [names[i] for i in lake["label"][1, 1:]] == ["c", "b"]
    assert names[lake["label"][1, 0]] == "a"
    assert [names[i] for i in lake["label"][:, -1]] == ["b", "b"]


@pytest.fixture
def lake(make_lake: Make) -> Lake:
    """Write small tensors of several kinds."""
    specs = {
        "fixed": TensorSpec(dtype="int64", shape=(4, 3)),
        "ragged": TensorSpec(dtype="int64", shape=(None, 2)),
        "free": TensorSpec(dtype="int64"),
        "text": TensorSpec("text"),
        "tags": TensorSpec("tag"),
        "label": TensorSpec(dtype="bool", shape=()),
        "link": TensorSpec("link[image]", verify=False),
    }
    samples = [
        {
            "fixed": np.full((4, 3), n),
            "ragged": np.full((n, 2), n),
            "free": np.zeros((2,) * (1 + n % 2), int),
            "text": "a",
            "tags": ["a"],
            "label": bool(n % 2),
            "link": dasklake.link("s3://bucket/a.jpg"),
        }
        for n in range(6)
    ]
    samples[5]["ragged"] = None
    return dasklake.open(make_lake(Schema(specs), [[samples[:4]], [samples[4:]]]).url)


@pytest.mark.parametrize(
    ("index", "problem"),
    [
        ((0, None), r"np\.newaxis"),
        ((0, [0, 1]), r"got \[0, 1\]"),
        ((0, np.array([True] * 4)), "an integer, a slice or an Ellipsis"),
        ((0, True), "got True"),
        ((0, 1.0), r"got 1\.0"),
        ((0, "a"), "got 'a'"),
        ((0, slice(0, 2, 0)), "step other than 0"),
        ((0, slice("a", None)), "must have integers"),
        ((slice(0, 2, 0), 0), "step other than 0"),
        ((0, ..., 1, ...), "one Ellipsis"),
        ((None, 0), "index must be an integer"),
        (("fixed", 0), "index must be an integer"),
        (([0.5], 0), "index must be an integer"),
    ],
)
def test_other_indices_are_refused(lake: Lake, index: Any, problem: str) -> None:
    """Indices that NumPy calls advanced are errors with a remedy, after the index of samples."""
    with pytest.raises(InvalidInputError, match=problem):
        lake["fixed"][index]


def test_an_index_out_of_range_names_sample_axis_and_shape(lake: Lake) -> None:
    """The error says which axis of which sample is too short, also for several samples."""
    with pytest.raises(IndexError, match=r"Index -4 .* axis 1 of tensor 'fixed'.* \(4, 3\)"):
        lake["fixed"][0, :, -4]
    with pytest.raises(IndexError, match=r"Index 2 .* axis 0 of sample 2 of tensor 'ragged'"):
        lake["ragged"][2, 2]
    with pytest.raises(IndexError, match=r"Index 3 .* sample 3 .* \(3, 2\)"):
        lake["ragged"][[4, 3], 3]
    with pytest.raises(IndexError, match=r"3 axes .* tensor 'ragged', which has 2"):
        lake["ragged"][0, 0, 0, 0]
    with pytest.raises(IndexError, match=r"2 axes .* sample 0 of tensor 'free', which has 1"):
        lake["free"][:, 0, 0]
    with pytest.raises(IndexError, match="Sample 6"):
        lake["fixed"][6, 0]
    with pytest.raises(IndexError, match="which has 0"):
        lake["label"][0, 0]


def test_an_error_of_the_schema_reads_nothing(
    make_lake: Make, counting_files: type[CountingFileSystem]
) -> None:
    """An index that the schema rules out is refused before any request."""
    schema = Schema({"x": TensorSpec(dtype="int64", shape=(4, 3))})
    store = make_lake(schema, [[[{"x": np.zeros((4, 3), int)}]]], ObjectStore("counted://early"))
    tensor = dasklake.open(store.url)["x"]
    counting_files.reset()
    for index in ((0, 4), (0, 0, 0, 0), (slice(None), ..., -4)):
        with pytest.raises(IndexError):
            tensor[index]
    assert not counting_files.reads


def test_values_without_axes(lake: Lake) -> None:
    """Text, documents and links have no axes, and the error says how to go on."""
    for name in ("text", "tags"):
        with pytest.raises(InvalidInputError, match=rf"lake\['{name}'\]\[i\]"):
            lake[name][0, 0]
    with pytest.raises(InvalidInputError, match=r"lake\['link'\]\[i\]\.numpy\(\)"):
        lake["link"][0, 0]
    assert lake["text"][0,] == "a"


def test_an_ellipsis_first_means_all_samples(lake: Lake) -> None:
    """``tensor[...]`` is every sample, and ``tensor[..., i]`` the last axis of each."""
    assert same(lake["fixed"][...], lake["fixed"].numpy())
    assert same(lake["fixed"][()], lake["fixed"].numpy())
    assert same(lake["fixed"][..., 1], lake["fixed"][:][..., 1])
    assert lake["label"][:, ...].tolist() == [False, True] * 3


def test_parts_are_stacked_if_their_shapes_agree(lake: Lake) -> None:
    """Ragged samples give one array if all parts have one shape, else a list."""
    ragged = lake["ragged"]
    assert same(ragged[2:5, :2], np.array([[[n] * 2] * 2 for n in (2, 3, 4)]))
    assert [part.shape for part in ragged[1:5, 1:]] == [(n, 2) for n in range(4)]
    assert ragged[3:6, 0, 0] == [3, 4, None]
    assert ragged[2:2, :1] == []
    empty = lake["fixed"][6:, 1:, 0]
    assert (empty.shape, empty.dtype) == ((0, 3), np.int64)


def test_a_dask_array_of_a_tensor(lake: Lake) -> None:
    """A tensor of fixed shape is an array for ``da.from_array``."""
    array = da.from_array(lake["fixed"], chunks=(2, 3, 2))
    assert array.dtype == np.int64
    assert same(array[1:5, ::2].compute(scheduler="sync"), lake["fixed"][:][1:5, ::2])


def test_damaged_samples_are_left_out_of_slices(make_lake: Make, tmp_path: Any) -> None:
    """With ``on_corrupt="skip"``, slices leave out damaged chunks, and single samples raise."""
    schema = Schema({"x": TensorSpec(dtype="int64", shape=(None, 2))})
    rows = [{"x": np.full((9000, 2), n)} for n in range(4)]
    store = make_lake(schema, [[rows[:2]], [rows[2:]]])
    damaged = next(key for key, _ in store.walk("data") if "/1-" in key or "1-1-" in key)
    path = tmp_path / "lake" / damaged
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    lake = dasklake.open(store.url, on_corrupt="skip")
    with pytest.warns(CorruptionWarning, match="left out"):
        parts = lake["x"][:, :, 0]
    assert same(parts, np.array([[n] * 9000 for n in (0, 1)]))
    with pytest.raises(CorruptionError):
        lake["x"][2, :, 0]


def test_parts_of_a_pickled_reader(lake: Lake) -> None:
    """A lake that travelled to another process reads the same parts."""
    copy = pickle.loads(pickle.dumps(lake))
    assert same(copy["fixed"][1:4, 2], lake["fixed"][1:4, 2])


def test_parts_of_a_view(lake: Lake) -> None:
    """A tensor of a view counts the samples of the view."""
    view = lake.select([4, 2, 3])
    assert same(view["ragged"][0, 1:3], np.full((2, 2), 4))
    assert same(view["fixed"][..., 1], lake["fixed"][[4, 2, 3]][..., 1])
    assert [part.shape for part in view["ragged"][[1, 0], 1:]] == [(1, 2), (3, 2)]
    assert view["ragged"].shape == (3, None, 2)
    assert (view["ragged"].min_shape, view["ragged"].max_shape) == ((2, 2), (4, 2))
    assert np.asarray(view["ragged"].shapes()).tolist() == [[4, 2], [2, 2], [3, 2]]
    with pytest.raises(IndexError, match="axis 0 of sample 2 of tensor 'ragged'"):
        view["ragged"][1, 2]
    assert lake.select([])["ragged"].max_shape is None
