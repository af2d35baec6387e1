"""The list of differences from vectorbt, and its copy for users."""

from pathlib import Path

from tests.peers.differences import DIFFERENCES

PAGE = Path(__file__).parents[2] / "docs" / "migrating-from-vectorbt.md"


def test_users_read_the_same_list():
    rows = [f"| {x.what} | {x.why} | {f'`{x.restored_by}`' if x.restored_by else 'none'} |" for x in DIFFERENCES]
    lines = PAGE.read_text().splitlines()
    begin = lines.index("| Difference | Why | Restored by |") + 2
    assert lines[begin : begin + len(rows) + 1] == [*rows, ""]
