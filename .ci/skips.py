"""Print the number of skipped tests; fail on a skip whose reason is not on the list."""

import sys
from pathlib import Path
from xml.etree import ElementTree as ET

ALLOWED = {
    "DASKLAKE_COCO_DIR is not set",  # real data that is not part of the project
    "user namespaces are not allowed",  # a small disk of its own needs one; its twin runs anywhere
    "the page shows pandas 3",  # with the oldest versions only
    "pandas before 3 decodes here",  # the same
    "does not write XMP data",  # the same
    "Arrow 18 cannot read a missing list of a fixed size",  # with the oldest versions only
    "Dask before 2025.4 optimises each frame alone",  # with the oldest versions only
    "strace is not installed",  # another test checks the same calls from inside
    "strace may not trace",  # in some containers; the same
}

#: Suites of other libraries, which skip what does not apply to a class.
SUITES = {"tests.unit._read.test_pandas_suite"}


def main(report: Path) -> int:
    """Return the exit code for one junit report."""
    # The report was written by pytest a moment ago, on this machine.
    cases = ET.parse(report).getroot().iter("testcase")  # noqa: S314 - our own file
    skips = [(case, skip) for case in cases for skip in case.iter("skipped")]
    strange = [
        (case, skip)
        for case, skip in skips
        if not any(reason in (skip.get("message") or "") for reason in ALLOWED)
        and not any((case.get("classname") or "").startswith(suite) for suite in SUITES)
    ]
    print(f"{len(skips)} skipped tests, {len(strange)} of them for a reason that is not allowed")
    for case, skip in strange:
        print(f"  {case.get('classname')}.{case.get('name')}: {skip.get('message')}")
    return 1 if strange else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
