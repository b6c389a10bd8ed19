"""Examples are safe to run again, and without their main guard."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import dasklake
from examples.shapes import ShapeSet
from tests.docs.test_blocks import blocks
from tests.support.clusters import wait_until

ROOT = Path(__file__).parents[2]
GUARD = 'if __name__ == "__main__":\n'
REFUSAL = 'Put the code of the script under `if __name__ == "__main__":`.'
IMAGES = 20
SMALL = {"01_bag_to_lake.py": 100, "02_dataframe_to_lake.py": 1_000, "03_array_to_lake.py": 1_000}


def environment() -> dict[str, str]:
    """Return the variables with which a script finds the project, and the key of its links."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "DASK_DASKLAKE__CREDS__COCO__ANON": "True"}


def run(script: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a process of its own."""
    command = [sys.executable, str(script), *arguments]
    return subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=240, check=False
    )


def flat(example: str, folder: Path) -> Path:
    """Write an example without its main guard to a folder."""
    head, guard, tail = (ROOT / "examples" / example).read_text().partition(GUARD)
    assert guard
    script = folder / example
    script.write_text(head + textwrap.dedent(tail))
    return script


@pytest.fixture
def coco_arguments(shapes: ShapeSet, tmp_path: Path) -> list[str]:
    """Return annotations and images, and the folder of a lake, for the two COCO scripts."""
    images = tmp_path / "images"
    images.mkdir()
    records = shapes.document["images"][:IMAGES]
    for record in records:
        (images / record["file_name"]).write_bytes(shapes.images[record["file_name"]])
    ids = {record["id"] for record in records}
    kept = [note for note in shapes.document["annotations"] if note["image_id"] in ids]
    annotations = tmp_path / "instances.json"
    document = {**shapes.document, "images": records, "annotations": kept}
    annotations.write_text(json.dumps(document))
    return [annotations.as_uri(), str(images), str(tmp_path / "lake")]


def test_page_about_deep_lake_runs_again_as_a_script(tmp_path: Path) -> None:
    """The code of the page runs as one flat script, and again over the lakes that it left."""
    script = tmp_path / "page.py"
    page = ROOT / "docs" / "how-to" / "port-from-deep-lake.md"
    script.write_text("\n".join(block.code for block in blocks(page)))
    for _ in range(2):
        result = subprocess.run(
            [sys.executable, str(script)],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr
    assert len(dasklake.open(tmp_path / "numbers")) == 36
    assert len(dasklake.open(tmp_path / "recovered")) == 100


@pytest.mark.parametrize("example", SMALL)
def test_small_example_without_a_guard_is_right_or_refused(example: str, tmp_path: Path) -> None:
    """Without the guard an example writes its lake, twice, or is refused before it writes."""
    script, url = flat(example, tmp_path), tmp_path / "lake"
    for _ in range(2):
        result = run(script, str(url))
        if result.returncode:
            assert REFUSAL in result.stderr.splitlines()[-1]
            assert not url.exists()
        else:
            assert len(dasklake.open(url)) == SMALL[example]


def test_ported_script_runs_every_night(coco_arguments: list[str]) -> None:
    """The script with workers replaces the lake each time; without its guard it is refused."""
    example = ROOT / "examples" / "compute_coco.py"
    arguments = [*coco_arguments, "--num-workers=2", "--checkpoint-interval=10"]
    contents = []
    for _ in range(2):
        result = run(example, *arguments)
        assert result.returncode == 0, result.stderr
        lake = dasklake.open(coco_arguments[2])
        assert lake.is_complete
        contents.append([sample["boxes"].tolist() for sample in lake])
    assert contents[0] == contents[1]
    assert len(contents[0]) == IMAGES


def test_ported_script_without_a_guard_is_refused(
    coco_arguments: list[str], tmp_path: Path
) -> None:
    """The script is refused before workers start, and the samples of earlier versions remain."""
    arguments = [*coco_arguments, "--num-workers=2"]
    assert run(ROOT / "examples" / "compute_coco.py", *coco_arguments).returncode == 0
    before = dasklake.open(coco_arguments[2])
    for _ in range(2):
        result = run(flat("compute_coco.py", tmp_path), *arguments)
        assert REFUSAL in result.stderr.splitlines()[-1]
        assert result.stderr.count("Traceback") == 1
    again = dasklake.open(coco_arguments[2], version=before.version)
    assert len(again) == len(before) == IMAGES


def test_script_with_its_own_workers_writes_nothing_without_a_guard(
    coco_arguments: list[str], tmp_path: Path
) -> None:
    """Dask's workers cannot import such a script; Python's error names the guard."""
    errors = tmp_path / "errors"
    command = [sys.executable, str(flat("coco_to_lake.py", tmp_path)), *coco_arguments]
    with errors.open("w") as file:
        process = subprocess.Popen(
            command, env=environment(), stderr=file, stdout=file, start_new_session=True
        )
    try:
        wait_until(lambda: "if __name__ == '__main__':" in errors.read_text(), "Python's error")
    finally:
        # Older releases of Dask start the workers again and again.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert not Path(coco_arguments[2]).exists()
