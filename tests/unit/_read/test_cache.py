"""The cache of chunks and descriptions."""

from __future__ import annotations

from dasklake._read.cache import LRUCache


def test_least_recent_entries_are_evicted() -> None:
    """Beyond the maximum size, the entries that were not put for longest are evicted."""
    cache = LRUCache[int, str](3, 100)
    for number in (1, 2, 3, 1, 4):
        cache.put(number, f"{number}", 30)
    assert [cache.get(number) for number in (1, 2, 3, 4)] == ["1", None, "3", "4"]
    cache.put(1, "1", 90)
    assert [cache.get(number) for number in (1, 2, 3, 4)] == ["1", None, None, None]


def test_the_newest_entry_is_kept() -> None:
    """An entry larger than the cache is kept until the next one is put."""
    cache = LRUCache[str, int](3, 100)
    cache.put("large", 1, 1000)
    assert cache.get("large") == 1
    cache.put("small", 2, 10)
    assert cache.get("large") is None
    assert cache.get("small") == 2


def test_updates_replace_the_size() -> None:
    """Putting an entry again counts its new size only."""
    cache = LRUCache[int, None](10, 100)
    for _ in range(5):
        cache.put(1, None, 60)
    cache.put(2, None, 40)
    assert len(cache._entries) == 2
