"""Test that several ranks train on one lake: each sample once, equal batches, and any continuation."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import dask
import pytest
import torch

import dasklake
from tests.support._ranks import Loop, Ranks, Result

#: Neither 2 nor 3 ranks can divide them evenly into batches.
SAMPLES = 53


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Write a lake of numbers in several chunks."""
    lake = dasklake.empty(tmp_path_factory.mktemp("ranks") / "lake")
    lake.create_tensor("x", dtype="int64", shape=())
    for begin in (0, 20, 40):
        lake.extend({"x": range(begin, min(begin + 20, SAMPLES))})
    return lake.url


def _order(url: str, epoch: int) -> list[int]:
    batches = dasklake.open(url).batches(SAMPLES, shuffle=True, epoch=epoch)
    return [number for batch in batches for number in batch["x"].tolist()]


def _once(results: Sequence[Result]) -> list[int]:
    """Return the samples of all ranks, which have equally many batches of equal sizes."""
    assert {tuple(result.sizes) for result in results} == {tuple(results[0].sizes)}
    assert all(result.state == results[0].state for result in results)
    return [number for result in results for number in result.samples]


@pytest.mark.parametrize("source", ["group", "environment"])
@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_read_each_sample_once(url: str, tmp_path: Path, ranks: int, source: str) -> None:
    """All ranks together read an epoch, with and without workers, in steps that wait for each other."""
    loops = [Loop(url, 4, workers, epoch) for epoch, workers in enumerate([0, 2])]
    for loop, results in zip(loops, Ranks(tmp_path).run(ranks, source, loops), strict=True):
        assert sorted(_once(results)) == list(range(SAMPLES))
        assert len(results[0].sizes) == -(-SAMPLES // (4 * ranks))
        assert results[0].state["position"] == SAMPLES
        assert results[0].state["epoch"] == loop.epoch


@pytest.mark.parametrize(
    ("first", "second"),
    [((2, 0, "group"), (3, 2, "environment")), ((3, 2, "group"), (2, 0, "group"))],
)
def test_an_epoch_continues_with_other_ranks_and_workers(
    url: str, tmp_path: Path, first: tuple[int, int, str], second: tuple[int, int, str]
) -> None:
    """The state that one rank saves continues the epoch on others: no sample is lost or repeated."""
    processes = Ranks(tmp_path)
    ranks, workers, source = first
    (used,) = processes.run(ranks, source, [Loop(url, 4, workers, epoch=5, stop=3)])
    state = used[0].state
    assert state["position"] == ranks * 4 * 3
    assert sorted(_once(used)) == sorted(_order(url, 5)[: state["position"]])

    ranks, workers, source = second
    loops = [Loop(url, 3, workers, state=state), Loop(url, 3, workers, epoch=6)]
    rest, following = processes.run(ranks, source, loops)
    assert sorted(_once(used) + _once(rest)) == list(range(SAMPLES))
    assert rest[0].state["epoch"] == 5
    assert sorted(_once(following)) == list(range(SAMPLES))


def test_the_script_of_the_page_is_run_by_torchrun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two ranks stop, and one continues: the script that readers copy prints what the page says."""
    page = (Path(__file__).parents[2] / "docs/how-to/train-on-a-lake.md").read_text()
    makes_lake, *others = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (script,) = (block for block in others if "init_process_group" in block)
    command = re.compile(
        r"^torchrun --standalone --nproc-per-node=(\d) train.py (\d+)$", re.MULTILINE
    )
    expected = re.findall("epoch 0 samples .*\n", page)
    monkeypatch.chdir(tmp_path)
    with dask.config.set(scheduler="threads"):
        exec(makes_lake, {"__name__": "__main__"})  # noqa: S102 # the project's own documentation
    (tmp_path / "train.py").write_text(script)
    lake, processes = dasklake.open("shapes"), Ranks(tmp_path)
    left = []
    for (ranks, batches), line in zip(command.findall(page), expected, strict=True):
        assert processes.launch(int(ranks), tmp_path / "train.py", batches) == line
        state = torch.load("ranks.pt")["data"]
        rest = lake.torch(30, ["label"], shuffle=True, state=state)
        left.append(sum(len(batch["label"]) for batch in rest))
    assert left == [200, 0]
