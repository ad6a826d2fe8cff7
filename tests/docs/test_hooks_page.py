"""The page of hooks: its table of what is inherited is the one that the tests go by."""

from __future__ import annotations

import re

from tests.docs.pages import DOCS
from tests.hooks.inherited import bridge_rows, cache_rows, tool_rows
from tests.hooks.inherited.rows import table

PAGE = (DOCS / "hooks.md").read_text(encoding="utf-8")


def test_the_table_is_what_is_tried() -> None:
    wanted = table([*bridge_rows.ROWS, *cache_rows.ROWS, *tool_rows.ROWS])
    found = re.search(r"<!-- table: .*? -->\n(.*?)\n?<!-- end -->", PAGE, re.DOTALL)
    assert found is not None and found[1] == wanted, f"the table should be:\n{wanted}"
