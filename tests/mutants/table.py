"""List the source text of each rule, the text without the rule, and the test that must fail then.

A name is that of the counterexample in `docs/design/002-commit-protocol.md`, if it has one.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["MUTANTS", "Mutant"]


class Mutant(NamedTuple):
    """A rule, and the code without the rule.

    Attributes
    ----------
    name : str
        The counterexample, or the removed rule.
    file : str
        A module of the package.
    changes : tuple of (str, str)
        Texts that occur exactly once, and their replacements.
    test : str
        The pytest id of the test that must fail.
    """

    name: str
    file: str
    changes: tuple[tuple[str, str], ...]
    test: str


_H = "tests/property/test_counterexamples.py::"
_LOG = "_log/log.py"
_LOG_READER = "_log/log_reader.py"
_ENTRIES = "_log/run_entries.py"
_EXPIRY = "_log/expiry.py"
_RUNS = "_log/run_writer.py"
_BRANCHES = "_log/refs.py"
_TABLES = "_log/segments.py"
_RESET = "_maintenance/reset.py"
_VACUUM = "_maintenance/vacuum.py"
_CACHE = "_storage/block_cache.py"
_BLOCKS = "tests/unit/_storage/test_block_cache.py::"
_START = "_run/start.py"
_RECOVERY = "_run/recovery.py"

#: The head that the caller gave, before any race was lost, as a builder can compute it.
_STALE = "log.read(head.version - len(_))"
_STALE_SINCE = "log.read(head.version - len(since))"

_FENCE_LAST = """        entry = expire(logs[MAIN], before.heads[MAIN], keep)
        expired = {
"""
_FENCE_FIRST = """        _fence(store, logs, before.heads[MAIN])
        entry = expire(logs[MAIN], before.heads[MAIN], keep)
        expired = {
"""
_KEEP_MERGED = """    unmerged, merged, level = _merge(base.segments)
    if merged and (found := _KEPT.get(merged)):
        return (*unmerged, found), []
"""

_NAMED = """    return (*unmerged, ref), [(object_keys.segment_key(commit_id), data)]


def add_failures"""
_NAMED_AND_KEPT = f"""    if merged:
        _KEPT[merged] = ref
{_NAMED}"""
_NOT_NAMED = _NAMED.replace("(*unmerged, ref)", "(unmerged if merged else (*unmerged, ref))")
_RESTORE = """    def build(head: Commit, since: Sequence[Commit], commit_id: str) -> Commit:
        raise_if_closed(head, since)
        # Read main after"""
_RESTORE_ONCE = f"""    once = None if log.branch == MAIN else Log(log.store).require_head()

{_RESTORE}"""

MUTANTS = (
    # Reset
    Mutant(
        "H1",
        _RESET,
        (("if name is None or name.epoch > closing.get(name.home, 0):", "if name is None:"),),
        _H + "TestReset::test_h1",
    ),
    Mutant(
        "H2",
        _ENTRIES,
        (
            (
                "closed = {name: max(s.epoch, s.closed) for name, s in open_runs.items()}",
                f"closed = {{name: {_STALE}.runs[name].epoch for name in open_runs}}",
            ),
        ),
        _H + "TestReset::test_h2",
    ),
    Mutant(
        "H3",
        "_maintenance/reachability.py",
        (
            (
                "for commit in self._commits(branch, without.get(branch, ())):",
                "for commit in [self.heads[branch]]:",
            ),
        ),
        _H + "TestReset::test_h3",
    ),
    Mutant(
        "H10",
        _RESET,
        (
            (
                "commit = abort(heads.logs[branch], heads.heads[branch], names)",
                'commit = abort(heads.logs["main"], heads.heads["main"], names)',
            ),
        ),
        _H + "TestReset::test_h10",
    ),
    Mutant(
        "H24",
        _RESET,
        (
            (
                "heads.reachable(set(closing), heads.unrestorable)",
                "heads.reachable(set(closing), heads.expired)",
            ),
        ),
        _H + "TestReset::test_h24",
    ),
    Mutant(
        "abort is a commit",
        _RESET,
        (
            (
                "        closed = _close(before, homes)\n",
                "        closed = {home: _closing(states[home]) for home in homes}\n",
            ),
        ),
        _H + "TestReset::test_h2",
    ),
    # Resume
    Mutant(
        "H4",
        _START,
        (("manifest = log.manifest(entry)", "manifest = log.manifest(head)"),),
        _H + "TestResume::test_h4",
    ),
    Mutant(
        "H5",
        _ENTRIES,
        (("== run and not take_over:", "== run and False:"),),
        _H + "TestResume::test_h5",
    ),
    Mutant(
        "H5, number not recomputed",
        _ENTRIES,
        (
            (
                "epoch = 1 + max(1, state.epoch, state.closed)",
                f"stale = {_STALE_SINCE}.runs[run]\n        epoch = 1 + max(1, stale.epoch, stale.closed)",
            ),
        ),
        _H + "TestResume::test_h5_taken_over",
    ),
    Mutant(
        "H6",
        _RUNS,
        (
            (
                "taken = [r for r in receipts if before.closed < r.epoch <= self.epoch]",
                "taken = list(receipts)",
            ),
        ),
        _H + "TestResume::test_h6",
    ),
    Mutant(
        "zombie stops at a newer epoch",
        _RUNS,
        (("if kind in (Kind.BEGIN, Kind.EPOCH, Kind.DATA,", "if kind in (Kind.BEGIN, Kind.DATA,"),),
        _H + "TestResume::test_zombie",
    ),
    Mutant(
        "H16, finished",
        _ENTRIES,
        (
            (
                "        if state.finished:\n            return None\n        if state.replaced:",
                "        if state.replaced:",
            ),
        ),
        _H + "TestResume::test_h16[S]",
    ),
    Mutant(
        "H16, overwritten",
        _ENTRIES,
        (("        if state.replaced:\n", "        if False:\n"),),
        _H + "TestResume::test_h16[R]",
    ),
    Mutant(
        "closed epochs are not recovered",
        _RECOVERY,
        (("name.partition in missing and name.epoch > closed:", "name.partition in missing:"),),
        _H + "TestResume::test_closed_epochs",
    ),
    Mutant(
        "complete attempts only",
        _RECOVERY,
        (("head.header.last != (number == len(chunks) - 1)", "False"),),
        _H + "TestResume::test_incomplete_attempts",
    ),
    # Begin
    Mutant(
        "H7",
        _ENTRIES,
        (("        if run in head.runs:\n", "        if False:\n"),),
        _H + "TestBegin::test_h7",
    ),
    Mutant(
        "H7b",
        _RUNS,
        (("Kind.EPOCH, Kind.DATA, Kind.OVERWRITE) and (", "Kind.EPOCH) and ("),),
        _H + "TestBegin::test_h7b",
    ),
    Mutant(
        "H20",
        _ENTRIES,
        (("order=next_order(head)", f"order=next_order({_STALE_SINCE})"),),
        _H + "TestBegin::test_h20",
    ),
    Mutant(
        "H23",
        "_format/object_keys.py",
        (('return f"_lake/probe/{new_id()}"', 'return "_lake/probe/once"'),),
        _H + "TestBegin::test_h23",
    ),
    # Restore, overwrite
    Mutant(
        "H13",
        _BRANCHES,
        (
            (
                "            runs=replace_unfinished(head.runs),\n",
                "            runs=restored.runs,\n",
            ),
        ),
        _H + "TestReplacing::test_h13",
    ),
    Mutant(
        "H14",
        _RUNS,
        (
            (
                "if kind in (Kind.OVERWRITE, Kind.RESTORE, Kind.CLOSED):",
                "if kind in (Kind.OVERWRITE, Kind.CLOSED):",
            ),
        ),
        _H + "TestReplacing::test_h14",
    ),
    Mutant(
        "H15",
        _RUNS,
        (("if first and kind is Kind.DATA:", "if False:"),),
        _H + "TestReplacing::test_h15",
    ),
    Mutant(
        "H15b",
        _RUNS,
        (
            (
                "replaces = before.plan.overwrite and not before.overwrote",
                "replaces = before.plan.overwrite and not any(r.partition for r in receipts[1:])",
            ),
        ),
        _H + "TestReplacing::test_h15b",
    ),
    # Vacuum, tags, branches
    Mutant(
        "H8",
        _VACUUM,
        (("return _ALL if over else state.closed", "return _ALL if over or state.closed else 0"),),
        _H + "TestVacuum::test_h8",
    ),
    Mutant(
        "H9",
        _VACUUM,
        (("        _fence(store, logs, entry)\n", ""),),
        _H + "TestVacuum::test_h9",
    ),
    Mutant(
        "H9b",
        _BRANCHES,
        (
            (
                "        _raise_if_unavailable(log, head, branch, version)\n",
                f"        _raise_if_unavailable(log, {_STALE}, branch, version)\n",
            ),
        ),
        _H + "TestVacuum::test_h9b",
    ),
    Mutant(
        "H9c",
        _VACUUM,
        ((_FENCE_LAST, _FENCE_FIRST), ("        _fence(store, logs, entry)\n", "")),
        _H + "TestVacuum::test_h9c",
    ),
    Mutant(
        "H10b",
        _VACUUM,
        (("return _ALL if over else state.closed", "return _ALL if over else state.epoch"),),
        _H + "TestVacuum::test_h10b",
    ),
    Mutant(
        "H10c",
        _RUNS,
        (
            (
                "object_keys.home_of(self.log.branch, self.run)",
                'object_keys.home_of("main", self.run)',
            ),
        ),
        _H + "TestVacuum::test_h10c",
    ),
    Mutant(
        "H11",
        _BRANCHES,
        (
            (
                "        _raise_if_unavailable(log, head, branch, version)\n",
                f"        _raise_if_unavailable(log, {_STALE}, branch, version)\n",
            ),
        ),
        _H + "TestVacuum::test_h11",
    ),
    Mutant(
        "H11, mirrored",
        _EXPIRY,
        (("find_expirable(head, logs).items()", f"find_expirable({_STALE}, logs).items()"),),
        _H + "TestVacuum::test_h11_mirrored",
    ),
    Mutant(
        "H12",
        _BRANCHES,
        (
            (
                "        _raise_if_expired(main, log.branch, version)\n        if not 0",
                f"        _raise_if_expired({_STALE_SINCE}, log.branch, version)\n        if not 0",
            ),
        ),
        _H + "TestVacuum::test_h12",
    ),
    Mutant(
        "H12, on a branch",
        _BRANCHES,
        (
            (
                "        main = head if log.branch == MAIN else Log(log.store).require_head()\n",
                "        if since:\n            pass\n        main = once if once else head\n",
            ),
            (_RESTORE, _RESTORE_ONCE),
        ),
        _H + "TestVacuum::test_h12_branch",
    ),
    Mutant(
        "H17",
        _TABLES,
        (
            ("    unmerged, merged, level = _merge(base.segments)\n", _KEEP_MERGED),
            (_NAMED, _NAMED_AND_KEPT),
            ("_MERGE = 16\n", "_MERGE = 16\n_KEPT: dict = {}\n"),
        ),
        _H + "TestVacuum::test_h17",
    ),
    Mutant(
        "H17b",
        _LOG,
        (("                if not newer:\n", "                if True:\n"),),
        _H + "TestVacuum::test_h17b",
    ),
    Mutant(
        "H21",
        _LOG_READER,
        (("        if version in expired:\n", "        if False:\n"),),
        _H + "TestVacuum::test_h21",
    ),
    Mutant(
        "H22",
        _VACUUM,
        (
            (
                "in {**{b: Log(store, b) for b in entry.branches}, **logs}.items():",
                "in {b: Log(store, b) for b in entry.branches}.items():",
            ),
        ),
        _H + "TestVacuum::test_h22",
    ),
    Mutant(
        "H25",
        _VACUUM,
        (
            (
                "after.reachable(candidates.homes, entry.expired)",
                "after.reachable(candidates.homes, after.expired)",
            ),
        ),
        _H + "TestVacuum::test_h25",
    ),
    Mutant(
        "expire is a commit",
        _VACUUM,
        (
            (
                "        entry = expire(logs[MAIN], before.heads[MAIN], keep)\n",
                '        entry = before.heads[MAIN]\n        entry.entry["expired"] = {}\n',
            ),
        ),
        _H + "TestVacuum::test_h12",
    ),
    # Creates in doubt, lost races
    Mutant(
        "read-back",
        _LOG,
        (
            (
                "            # The error may be wrong either way: only the version itself is certain.\n",
                "            if isinstance(error, ObjectExistsError):\n                return False\n            raise\n",
            ),
        ),
        _H + "TestDoubt::test_read_back",
    ),
    Mutant(
        "H18",
        _LOG,
        (
            (
                "build(head, since, object_keys.new_id())",
                'build(head, since, f"{head.version + 1:016x}")',
            ),
        ),
        _H + "TestDoubt::test_h18",
    ),
    Mutant(
        "new id on rebase",
        _LOG,
        (
            (
                "build(head, since, object_keys.new_id())",
                "build(head, since, vars(build).setdefault('id', object_keys.new_id()))",
            ),
        ),
        _H + "TestDoubt::test_new_id_on_rebase",
    ),
    Mutant(
        "H19",
        _LOG,
        (
            ("                raise error from None\n", "                return False\n"),
            (
                "            head = since[-1]\n",
                "            head = since[-1] if newer else head\n",
            ),
        ),
        _H + "TestDoubt::test_h19",
    ),
    Mutant(
        "H19b",
        _LOG,
        (
            (
                "build(head, since, object_keys.new_id())",
                "build(head, since, vars(build).setdefault('id', object_keys.new_id()))",
            ),
            ("                raise error from None\n", "                return False\n"),
            (
                "            head = since[-1]\n",
                "            head = since[-1] if newer else head\n",
            ),
        ),
        _H + "TestDoubt::test_h19b",
    ),
    Mutant(
        "rebase reads every commit",
        _LOG,
        (("            since += newer\n", "            since = newer[-1:]\n"),),
        _H + "TestDoubt::test_rebase_reads_every_commit",
    ),
    Mutant(
        "receipt-twice",
        "_run/progress.py",
        (
            (
                "        if receipt.partition not in self._open:\n            return False\n",
                "",
            ),
        ),
        _H + "TestDoubt::test_receipt_twice",
    ),
    Mutant(
        "merged-not-named",
        _TABLES,
        ((_NAMED, _NOT_NAMED),),
        _H + "TestDoubt::test_merged_and_named",
    ),
    Mutant(
        "cache-unchecked",
        _CACHE,
        ((" and _checksum(digest, number, block) == crc", ""),),
        _BLOCKS + "test_a_damaged_record_is_missing",
    ),
    Mutant(
        "cache-without-names",
        _CACHE,
        (("int(position ^ ", "int(0 * position ^ "),),
        _BLOCKS + "test_a_record_of_another_object_is_missing",
    ),
    Mutant(
        "cache-without-limit",
        _CACHE,
        (
            ("fits = used + size <= self._settings.size", "fits = True"),
            ("if used <= limit:", "if 1:"),
        ),
        _BLOCKS + "test_the_limit_holds",
    ),
    Mutant(
        "cache-follows-links",
        _CACHE,
        ((' | getattr(os, "O_NOFOLLOW", 0)', ""),),
        _BLOCKS + "test_a_link_in_place_of_the_directory_is_refused",
    ),
    Mutant(
        "cache-of-others",
        _CACHE,
        (("status.st_uid != os.geteuid() or ", ""),),
        _BLOCKS + "test_a_directory_of_another_user_is_refused",
    ),
    Mutant(
        "cache-unlocked",
        _CACHE,
        (("while not _try_lock(fd):", "while False:"),),
        _BLOCKS + "test_a_held_lock_does_not_block",
    ),
    Mutant(
        "crop-misses-steps",
        "_read/axis_index.py",
        (
            (
                "begins += sum(min(span[0], span[-1]) * stride for span, stride in near)",
                "begins += sum(span[0] * stride for span, stride in near)",
            ),
        ),
        "tests/property/test_parts_of_values.py::test_ranges_hold_the_selected_elements",
    ),
    Mutant(
        "checks-trust-prefixes",
        "_format/page_checksums.py",
        (
            (
                "                if joined == google_crc32c.value(pages):\n",
                "                if joined:\n",
            ),
        ),
        "tests/unit/_format/test_page_checksums.py::test_a_range_is_intact_exactly_if_each_of_its_pages_is",
    ),
    Mutant(
        "last-page-is-whole",
        "_format/page_checksums.py",
        (("self._last = size - (len(crcs) - 1) * page", "self._last = page"),),
        "tests/unit/_format/test_page_checksums.py::test_many_pages_are_checked_with_one_call",
    ),
    Mutant(
        "batches-unchecked-on-disk",
        "_storage/local_backend.py",
        (("check(start, data)  # while", "pass  # while"),),
        "tests/contract/test_store_file.py::TestFileStore",
    ),
    Mutant(
        "state-counts-read-ahead",
        "_read/batches.py",
        (("self._yielded + 1, padding", "self._yielded + len(pending) + 1, padding"),),
        "tests/unit/_read/test_batch_orders.py::test_the_state_follows_the_batches_that_were_yielded",
    ),
    Mutant(
        "repeated-rows-share-memory",
        "_read/chunk_pieces.py",
        (("own = parts is not None and len(set(parts)) == len(parts)", "own = parts is not None"),),
        "tests/unit/_read/test_batches.py::test_arrays_can_be_written_apart_from_each_other",
    ),
    Mutant(
        "pool-forgets-views",
        "_storage/memory_pool.py",
        (("        return lease.data\n", "        return block.data\n"),),
        "tests/unit/_storage/test_memory_pool.py::test_blocks_are_used_again_after_their_last_view",
    ),
    Mutant(
        "unbounded-read-ahead",
        "_read/read_ahead.py",
        (("not self._used or self._used + nbytes <= self._most", "True"),),
        "tests/unit/_read/test_read_ahead.py::test_units_wait_for_the_bytes_of_earlier_ones",
    ),
)
