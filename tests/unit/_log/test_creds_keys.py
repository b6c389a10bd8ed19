"""Credentials keys can be added twice, renamed, and their former names used again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dask
import pytest

import dasklake
from dasklake.exceptions import InvalidInputError


@pytest.fixture(autouse=True)
def values() -> Iterator[None]:
    """Set the values of all keys of this module."""
    with dask.config.set(
        {f"dasklake.creds.{name}": {"anon": True} for name in ("a", "b", "other")}
    ):
        yield


@pytest.fixture
def lake(tmp_path: Path) -> dasklake.Lake:
    """Return an empty lake with a tensor of links."""
    lake = dasklake.empty(tmp_path / "lake")
    lake.create_tensor("image", "link[image]", verify=False)
    return lake


@pytest.mark.parametrize("managed", [True, False])
def test_an_equal_key_is_added_once(lake: dasklake.Lake, *, managed: bool) -> None:
    """Adding a key again changes nothing, and writes no version."""
    lake.add_creds_key("coco", managed=managed)
    version = lake.version
    lake.add_creds_key("coco", managed=managed)
    assert lake.creds_keys == ["coco"]
    assert lake.version == version


def test_a_key_with_another_setting_is_refused(lake: dasklake.Lake) -> None:
    """The message names the call that changes the setting, and the call works."""
    lake.add_creds_key("coco")
    remedy = r"exists with managed=False. .* update_creds_key\('coco', managed=True\)"
    with pytest.raises(InvalidInputError, match=remedy):
        lake.add_creds_key("coco", managed=True)
    lake.update_creds_key("coco", managed=True)
    lake.add_creds_key("coco", managed=True)


def test_a_script_that_renames_a_key_runs_twice(tmp_path: Path) -> None:
    """After ``empty(overwrite=True)`` no link has the former name, so it can be used again."""
    for attempt in range(2):
        lake = dasklake.empty(tmp_path / "lake", overwrite=True)
        lake.create_tensor("image", "link[image]", verify=False)
        lake.add_creds_key("a", managed=True)
        with lake:
            lake.append({"image": dasklake.link(f"memory://{attempt}", "a")})
        assert lake[0]["image"].creds_key == "a"
        if attempt == 0:
            first = lake.version
            lake.update_creds_key("a", "b")
            assert lake[0]["image"].creds_key == "b"
    assert lake.creds_keys == ["b", "a"]
    assert dasklake.open(lake.url, version=first)[0]["image"].url == "memory://0"


def test_a_name_that_links_may_have_is_refused(lake: dasklake.Lake) -> None:
    """While samples have links of a former name, no other key gets it; its own key may."""
    lake.add_creds_key("a", managed=True)
    lake.add_creds_key("other", managed=True)
    with lake:
        lake.append({"image": dasklake.link("memory://a", "a")})
    lake.update_creds_key("a", "b")
    with pytest.raises(InvalidInputError, match=r"'a', which credentials key 'b' had before"):
        lake.add_creds_key("a")
    with pytest.raises(InvalidInputError, match=r"'a', which credentials key 'b' had before"):
        lake.update_creds_key("other", "a")
    lake.update_creds_key("b", "a")
    assert lake[0]["image"].creds_key == "a"
