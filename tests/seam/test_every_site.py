"""An edit at any site reaches the output, or is refused."""

import families
import pytest
import torch
from checks import identity
from families import late_scores
from torch import Tensor

import probekit as pk
from probekit.site import parse_site


class Noise(pk.Intervention):
    """Additive noise: a factor would be hidden by LayerNorm."""

    def __init__(self, site: str) -> None:
        self.site = parse_site(site)

    def sites(self) -> tuple[pk.Site, ...]:
        return (self.site,)

    def edit(self, x: Tensor, at: pk.Firing) -> Tensor:
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(4))
        return x + noise


@pytest.mark.parametrize("family", families.ALL, indirect=True)
def test_noise_at_every_site_reaches_the_output(family):
    table = pk.list_sites(family.model)
    assert set(table["edit"]) == {"causal"}
    for address in table["site"]:
        receipt = pk.verify(family.model, Noise(address), *family.args, **family.kwargs)
        assert receipt.output_change > 1e-4, address
        assert not receipt.silent
        assert [row.fired for row in receipt.rows] == [1]


def test_every_refused_site_raises_and_every_other_is_causal():
    model, ids = late_scores(layers=2), torch.arange(6)[None]
    table = pk.list_sites(model)
    assert list(table[table["edit"] == "refused"]["site"]) == ["0.scores", "1.scores"]
    for row in table.itertuples():
        if row.edit == "causal":
            assert pk.verify(model, Noise(row.site), ids).output_change > 1e-4, row.site
            continue
        hooks_before = len(model.hook_dict[row.hook]._forward_hooks)
        with pytest.raises(pk.DecorativeHookError) as error:
            pk.attach(model, pk.Edit(row.site, identity))
        assert str(error.value).endswith(
            f" at {row.site} ({row.hook}): the hook fires after the softmax and holds the "
            "pattern; edit 'pattern' instead, or load the model with pk.load, whose attention has "
            "live scores"
        )
        assert len(model.hook_dict[row.hook]._forward_hooks) == hooks_before


def test_a_refused_site_may_still_be_read():
    model, ids = late_scores(layers=2), torch.arange(6)[None]
    with pk.attach(model, pk.Record("0.scores"), pk.Record("0.pattern", name="pattern")) as run:
        model(ids)
    assert torch.equal(run["record"].values, run["pattern"].values)
