"""Every row of the table in docs/sources.md holds, and the table is the rows."""

from pathlib import Path

import pytest

from fetch.kinds import DOCS, Kind, all_kinds, docs_table


@pytest.mark.parametrize("kind", all_kinds(), ids=lambda kind: f"{kind.kind}: {kind.given}")
def test_kind(kind: Kind, tmp_path: Path) -> None:
    kind.check(tmp_path)


def test_the_docs_show_these_rows() -> None:
    assert docs_table() in DOCS.read_text(encoding="utf-8"), "run: PYTHONPATH=tests python -m fetch.kinds"
