"""A column of a page filled by name."""

from __future__ import annotations

import pytest

from jaxrm.errors import DataError
from jaxrm.study.measured import fill

PAGE = """\
# Page

| name | formula | measured |
|---|---|---|
| Hinge `hinge` | max(0, m \\| d) | old |
| Other | x |  |

| name | other |
|---|---|
| Hinge `hinge` | kept |
"""


def test_only_the_named_cell_of_the_column_changes():
    found = fill(PAGE, "measured", {"hinge": "+1.0"})
    assert found == PAGE.replace("| old |", "| +1.0 |")
    assert fill(found, "measured", {"hinge": "+1.0"}) == found


def test_a_name_without_a_row_is_an_error():
    with pytest.raises(DataError, match="'measured' names focal"):
        fill(PAGE, "measured", {"hinge": "", "focal": ""})
