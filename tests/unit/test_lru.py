"""The cache of commits, segments, chunks and descriptions."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from dasklake._lru import LRUCache


def test_least_recently_put_entries_are_evicted() -> None:
    """Beyond the maximum size, the entries that were put earliest are evicted."""
    cache = LRUCache[int, str](max_entries=3, max_size=100)
    for number in (1, 2, 3, 1, 4):
        cache.put(number, f"{number}", 30)
    assert [cache.get(number) for number in (1, 2, 3, 4)] == ["1", None, "3", "4"]
    cache.put(1, "1", 90)
    assert [cache.get(number) for number in (1, 2, 3, 4)] == ["1", None, None, None]


def test_get_refreshes_an_entry() -> None:
    """An entry that was read is evicted later than one that was not."""
    cache = LRUCache[str, int](max_size=100)
    cache.put("read", 1, 50)
    cache.put("unread", 2, 50)
    assert cache.get("read") == 1
    cache.put("new", 3, 50)
    assert [cache.get(key) for key in ("read", "unread", "new")] == [1, None, 3]


def test_the_newest_entry_is_kept() -> None:
    """An entry larger than the cache is kept until the next one is put."""
    cache = LRUCache[str, int](max_size=100)
    cache.put("large", 1, 1000)
    assert cache.get("large") == 1
    cache.put("small", 2, 10)
    assert cache.get("large") is None
    assert cache.get("small") == 2


def test_updates_replace_the_size() -> None:
    """Putting an entry again counts its new size only."""
    cache = LRUCache[int, int](max_size=100)
    for _ in range(5):
        cache.put(1, 1, 60)
    cache.put(2, 2, 40)
    assert [cache.get(1), cache.get(2)] == [1, 2]


def test_threads_share_a_cache() -> None:
    """Concurrent reads and writes neither fail nor break the bounds."""
    cache = LRUCache[int, int](max_size=50)

    def use(start: int) -> None:
        for step in range(2_000):
            key = (start + step * 7) % 40
            assert cache.get(key) in (None, key)
            cache.put(key, key, 10)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(use, range(8)))
    assert sum(cache.get(key) is not None for key in range(40)) == 5
