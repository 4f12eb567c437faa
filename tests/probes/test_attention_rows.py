"""Which rows are read: queries, sites and stacks."""

import pytest
import torch

import probekit as pk


def test_chosen_queries_read_as_their_rows(built):
    """T stays the length of the example, whichever queries are read."""
    family = built("native")
    several = pk.VDI(queries=(2, -1), name="several")
    with pk.attach(family.model, pk.VDI(), pk.VDI(queries=(2,), name="two"), several) as run:
        family.run()
    rows = run["vdi"].rows
    assert rows.dims == ("layer", "head", "query")
    torch.testing.assert_close(run["two"].values, rows.values[..., 2])
    torch.testing.assert_close(run["two"].null, rows.null[..., 2])
    torch.testing.assert_close(run["several"].values, rows.values[..., [2, 6]].mean(-1))


def test_rows_average_to_the_value(built):
    family = built("native")
    with pk.attach(family.model, pk.VDI()) as run:
        family.run()
    torch.testing.assert_close(run["vdi"].rows.values.mean(-1), run["vdi"].values)
    assert run["vdi"].rows.name == "vdi.rows"


def test_a_site_with_a_head_reads_that_head(built):
    family = built("native")
    with pk.attach(family.model, pk.VDI(), pk.VDI(site="1.pattern:1", name="one")) as run:
        family.run()
    one = run["one"]
    assert dict(one.coords) == {"layer": [1], "head": [1]}
    torch.testing.assert_close(one.values, run["vdi"].values[1:, 1:])


def test_stacks_are_a_dimension_where_there_are_several(built):
    family = built("t5")
    with pk.attach(family.model, pk.VDI()) as run:
        family.run()
    result = run["vdi"]
    assert result.dims == ("stack", "layer", "head")
    assert list(result.coords["stack"]) == ["encoder", "decoder", "decoder.cross"]
    for stack, site in enumerate(("encoder", "decoder.self", "decoder.cross")):
        with pk.attach(family.model, pk.VDI(site=f"{site}.pattern")) as single:
            family.run()
        torch.testing.assert_close(single["vdi"].values, result.values[stack])


def test_towers_of_different_size_are_padded_with_nan(built):
    family = built("clip")
    with pk.attach(family.model, pk.VDI()) as run:
        family.run()
    values = dict(zip(run["vdi"].coords["stack"], run["vdi"].values, strict=True))
    expected = torch.ones(3, 4, dtype=torch.bool)  # the largest of either
    for stack, layers, heads in (("text", 2, 4), ("vision", 3, 2)):
        absent = expected.clone()
        absent[:layers, :heads] = False
        assert torch.equal(values[stack].isnan(), absent)
    assert len(run["vdi"].to_frame()) == 2 * 4 + 3 * 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pk.VDI(site="0.z"), "VDI reads a pattern, not '0.z'"),
        (lambda: pk.AttentionEntropy(site="z"), "AttentionEntropy reads a pattern, not 'z'"),
        (lambda: pk.VDI(queries=()), "queries are whole numbers, such as (5,), not ()"),
    ],
)
def test_parameters_that_mean_nothing(make, message):
    with pytest.raises(pk.ProbekitError) as error:
        make()
    assert str(error.value) == message


def test_queries_outside_of_the_text(built):
    family = built("native")
    message = r"^queries=\(2, 7, -8\): \[7, -8\] lie outside the 7 positions$"
    vdi = pk.VDI(queries=(2, 7, -8))
    with pytest.raises(pk.ProbekitError, match=message), pk.attach(family.model, vdi):
        family.run()
