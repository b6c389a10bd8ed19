"""Damaged pictures: refused when they are written, skipped when they are read, found by verify()."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import dask
import dask.bag as db
import numpy as np
import pytest
from PIL import Image

import dasklake
from dasklake import Lake, Schema, TensorSpec
from dasklake._api.cli import cli
from dasklake._read import corruption
from dasklake.exceptions import (
    CorruptionWarning,
    InvalidInputError,
    SampleError,
    TransformError,
)
from tests.support import media, pictures
from tests.support.cli import cli_runner

GOOD = [0, 1, 3, 5]
SOUND = media.sound("wav")


@pytest.fixture(autouse=True)
def threads(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run in threads, and warn of each damage again."""
    monkeypatch.setattr(corruption, "_reported", set())
    with dask.config.set(scheduler="threads"):
        yield


def photo(number: int) -> bytes:
    """Make a JPEG of 300 x 250 pixels."""
    random = np.random.default_rng(number)
    image = Image.fromarray(random.integers(0, 255, (25, 30, 3), np.uint8)).resize((300, 250))
    data = pictures.file_of(image, "jpeg")
    assert data is not None
    return data


def samples() -> list[dict[str, Any]]:
    """Make six samples; picture 2 is truncated, and the second picture of list 4."""
    made = []
    for number in range(6):
        whole, cut = photo(number), photo(number)[:-400]
        pair = [whole, cut if number == 4 else whole]
        made.append({"n": number, "image": cut if number == 2 else whole, "pair": pair})
    return made


def specs(**options: Any) -> dict[str, TensorSpec]:
    """Return the schema of the samples."""
    return {
        "n": TensorSpec(dtype="int64", shape=()),
        "image": TensorSpec("image", compression="jpeg", **options),
        "pair": TensorSpec("sequence[image]", compression="jpeg", **options),
    }


@pytest.fixture
def unverified(tmp_path: Path) -> str:
    """Write the samples without verification, in two chunks."""
    url = str(tmp_path / "lake")
    bag = db.from_sequence(samples(), npartitions=2)
    report = dasklake.to_lake(bag, url, schema=specs(verify=False), progress=False)
    assert report.samples == 6
    return url


@pytest.mark.parametrize("verify", [None, "decode"])
def test_damaged_pictures_are_failures_of_their_samples(tmp_path: Path, verify: Any) -> None:
    """A damaged picture ends the run with its sample, tensor, value and remedy, or is skipped."""
    bag = db.from_sequence(samples(), npartitions=1)
    with pytest.raises(TransformError, match=r"index 2 .*tensor 'image'.*truncated.*verify=False"):
        dasklake.to_lake(bag, tmp_path / "a", schema=specs(verify=verify), progress=False)
    report = dasklake.to_lake(
        bag,
        tmp_path / "b",
        schema=specs(verify=verify),
        on_error="skip",
        max_failures=None,
        progress=False,
    )
    assert (report.samples, report.failures) == (4, 2)
    lake = dasklake.open(tmp_path / "b")
    assert [int(sample["n"]) for sample in lake] == GOOD
    assert lake.failures()["tensor"].tolist() == ["image", "pair"]
    assert "item 1" in lake.failures()["message"][1]
    assert lake.verify(decode=True).ok


def test_readers_skip_pictures_that_cannot_be_decoded(unverified: str) -> None:
    """With on_corrupt="skip", every loop leaves out the samples, and warns of each once."""
    lake = dasklake.open(unverified, on_corrupt="skip")
    with pytest.warns(CorruptionWarning) as warned:
        assert [int(sample["n"]) for sample in lake] == GOOD
    messages = [str(warning.message) for warning in warned]
    assert len(messages) == 2
    assert "Sample 2 of" in messages[0]
    assert "tensor 'pair', sample 4" in messages[1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [int(sample["n"]) for sample in lake[1:5]] == [1, 3]
        assert [int(sample["n"]) for sample in lake[[5, 4, 2, 0]]] == [5, 0]
        assert len(lake["image"][:]) == len(list(lake["image"])) == 5
        assert len(lake["pair"][:]) == 5
        assert [int(s["n"]) for s in lake.to_dask_bag().compute()] == GOOD
        assert len(lake.to_dask_bag(columns=["n"]).compute()) == 6
        # A frame holds the bytes, which are not decoded.
        assert len(lake.to_dask_dataframe().compute()) == 6
    with pytest.raises(SampleError, match="tensor 'image', sample 2"):
        lake[2]["image"]
    assert len(lake) == 6
    assert lake["image"].bytes(2) == samples()[2]["image"]


def test_readers_raise_by_default(unverified: str) -> None:
    """By default, a picture that cannot be decoded is an error that names tensor and sample."""
    lake = dasklake.open(unverified)
    for read in (
        lambda: [sample["image"] for sample in lake],
        lambda: [sample["image"] for sample in lake[1:4]],
        lambda: lake["image"][:],
        lambda: [s["image"] for s in lake.to_dask_bag(columns=["image"]).compute()],
    ):
        with pytest.raises(SampleError, match=r"tensor 'image', sample 2.*truncated"):
            read()


def test_arrays_name_the_sample(tmp_path: Path) -> None:
    """An array cannot skip a picture; the error names the tensor and the sample."""
    bag = db.from_sequence([{"i": photo(0)}, {"i": photo(1)[:-400]}], npartitions=1)
    spec = TensorSpec("image", compression="jpeg", shape=(250, 300, 3), verify=False)
    dasklake.to_lake(bag, tmp_path / "lake", schema={"i": spec}, progress=False)
    lake = dasklake.open(tmp_path / "lake", on_corrupt="skip")
    with pytest.raises(SampleError, match="tensor 'i', sample 1"):
        lake.to_dask_array("i").compute()


def check_found(lake: Lake, found: list[tuple[tuple[int, int] | None, str]]) -> None:
    """Compare what verify(decode=True) reports."""
    assert lake.verify().ok
    report = lake.verify(decode=True)
    assert report.decoded
    assert not report.ok
    assert [(damage.rows, damage.problem.split(":")[0]) for damage in report.damaged] == found


def test_verify_decodes_stored_media(unverified: str) -> None:
    """verify(decode=True) reports each undecodable value; the checksums are right."""
    lake = dasklake.open(unverified)
    check_found(lake, [((2, 3), "tensor 'image'"), ((4, 5), "tensor 'pair'")])
    with pytest.raises(InvalidInputError, match="quick=True or decode=True"):
        lake.verify(quick=True, decode=True)
    result = cli_runner().invoke(cli, ["verify", unverified, "--decode"])
    assert result.exit_code == 1
    assert "tensor 'image'" in result.output
    assert "2 objects are damaged" in result.output


def test_verify_decodes_what_older_versions_name(tmp_path: Path) -> None:
    """Values of overwritten versions, and tensors under former names, are decoded too."""
    url = str(tmp_path / "lake")
    schema = Schema({"sound": TensorSpec("audio", compression="wav", verify=False)})

    def write(value: bytes, mode: Any) -> None:
        bag = db.from_sequence([{"sound": value}], npartitions=1)
        dasklake.to_lake(bag, url, schema=schema, mode=mode, progress=False)

    write(SOUND[:-500], "create")
    lake = dasklake.open(url)
    lake.rename_tensor("sound", "speech")
    check_found(lake, [((0, 1), "tensor 'speech'")])


def test_copies_are_verified_if_the_target_is_stricter(unverified: str, tmp_path: Path) -> None:
    """Stored files pass through unchanged; a stricter target verifies them."""
    lake = dasklake.open(unverified)
    bag = lake.to_dask_bag()
    options: dict[str, Any] = {"on_error": "skip", "max_failures": None, "progress": False}
    same = dasklake.to_lake(bag, tmp_path / "same", schema=lake.schema, **options)
    assert (same.samples, same.failures) == (6, 0)
    strict = dasklake.to_lake(bag, tmp_path / "strict", schema=specs(), **options)
    assert (strict.samples, strict.failures) == (4, 2)
    copy = dasklake.open(tmp_path / "strict")
    assert [copy["image"].bytes(i) for i in range(4)] == [lake["image"].bytes(i) for i in GOOD]


def test_zeroed_middles_are_found(tmp_path: Path) -> None:
    """A zeroed part that Pillow passes over is found by verify(decode=True)."""
    data = photo(0)
    zeroed = data[: len(data) // 2] + bytes(500) + data[len(data) // 2 + 500 :]
    spec = TensorSpec("image", compression="jpeg", verify=False)
    bag = db.from_sequence([{"image": data}, {"image": zeroed}], npartitions=1)
    dasklake.to_lake(bag, tmp_path / "lake", schema={"image": spec}, progress=False)
    lake = dasklake.open(tmp_path / "lake")
    assert lake[1]["image"].shape == (250, 300, 3)  # Pillow decodes it
    check_found(lake, [((1, 2), "tensor 'image'")])


def test_links_are_verified_as_stored_files_are(tmp_path: Path) -> None:
    """A link to a whole 16-bit image is not called truncated; decoding finds zeroed parts."""
    data = photo(0)
    zeroed = data[: len(data) // 2] + bytes(500) + data[len(data) // 2 + 500 :]
    files = {"whole.jpg": data, "zeroed.jpg": zeroed, "wide.png": pictures.png16(3, 2)}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)

    def write(*, verify: Any) -> Lake:
        bag = db.from_sequence([{"i": str(tmp_path / name)} for name in files], npartitions=1)
        url = tmp_path / f"lake-{verify}"
        dasklake.to_lake(
            bag,
            url,
            schema={"i": TensorSpec("link[image]", verify=verify)},
            on_error="skip",
            max_failures=None,
            progress=False,
        )
        return dasklake.open(url)

    failures = write(verify="decode").failures()
    assert failures["index"].tolist() == [1, 2]
    assert "is truncated or damaged" in failures["message"][0]
    assert "cannot be read as an image (an image must have 8 bits" in failures["message"][1]
    assert len(write(verify=True)) == 2
    unverified = write(verify=False)
    assert len(unverified) == 3
    with pytest.raises(SampleError, match="8 bits"):
        unverified[2]["i"].numpy()
