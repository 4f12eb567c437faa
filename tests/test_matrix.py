"""Every intervention on every family: README's table, cell by cell."""

import causality
import matrix
import pytest
from checks import unchanged

SHOWN = causality.README.read_text().partition(matrix.BEGIN)[2].partition(matrix.END)[0]
CELLS = {
    words[0]: dict(zip((column.title for column in matrix.COLUMNS), words[1:], strict=True))
    for line in SHOWN.splitlines()[2:]
    if (words := [word.strip() for word in line.strip("|").split("|")])
}


@pytest.mark.parametrize("column", matrix.COLUMNS, ids=lambda column: column.title)
@pytest.mark.parametrize("row", matrix.ROWS, ids=lambda row: row.name)
def test_it_works_as_shown_and_leaves_no_trace(
    row: matrix.Row, column: matrix.Column, built
) -> None:
    family = built(column.family)
    with unchanged(family):
        measured = matrix.cell(row, column, family)
    assert measured == CELLS[row.name][column.title], "run python tests/matrix.py"


@pytest.mark.parametrize("column", matrix.COLUMNS, ids=lambda column: column.title)
def test_frozen_weights_are_held(column: matrix.Column, built) -> None:
    assert matrix.held(column, built(column.family)) == CELLS["FreezeWeights"][column.title]


def test_nothing_is_missing() -> None:
    from probekit.registry import items

    names = {name.split()[0] for name in CELLS}
    assert names == set(items("probekit.interventions"))
