"""Which sites a model offers, and which of them an address means."""

import copy

import families
import pandas as pd
import pytest
import torch
from families import late_scores
from torch import Tensor, nn
from transformer_lens import HookedRootModule
from transformer_lens.hook_points import HookPoint

import probekit as pk
from probekit import seam
from probekit.hooksite import HookPoints, find_sites, hook_points
from probekit.site import PARTS, parse_site
from probekit.sitemap import SiteMap

LAYERED = [part for part in PARTS if part not in ("embed", "ln_final", "logits")]


# For each family its stacks with their depths and heads, and the parts outside of the blocks.
STACKS = {
    "native": ({"": (2, 2)}, ["embed", "ln_final", "logits"]),
    "gpt2": ({"": (2, 4)}, ["embed", "ln_final", "logits"]),
    "bert": ({"": (2, 4)}, ["embed", "ln_final", "logits"]),
    "bert encoder": ({"": (2, 4)}, ["embed"]),
    "t5": (
        {"encoder": (2, 4), "decoder": (2, 4)},
        ["encoder.embed", "decoder.embed", "encoder.ln_final", "decoder.ln_final", "logits"],
    ),
    "vit": ({"": (2, 4)}, ["embed", "ln_final"]),
    "clip": (
        {"text": (2, 4), "vision": (3, 2)},
        ["text.embed", "vision.embed", "text.ln_final", "vision.ln_final"],
    ),
    "dinov2": ({"": (2, 4)}, ["embed", "ln_final"]),
}


CROSS = ["q", "k", "v", "scores", "pattern", "z", "attn_out", "resid_mid"]


def expected_sites(name: str) -> set[str]:
    """The addresses that a family should offer, written from its config."""
    stacks, unlayered = STACKS[name]
    found = set(unlayered)
    for stack, (depth, _) in stacks.items():
        prefix = f"{stack}." if stack else ""
        for layer in range(depth):
            for part in LAYERED:
                if part == "ln3" and stack != "decoder":
                    continue
                own = "self." if stack == "decoder" and part in CROSS else ""
                found.add(f"{prefix}{layer}.{own}{part}")
            if stack == "decoder":
                found |= {f"decoder.{layer}.cross.{part}" for part in CROSS}
    return found


@pytest.mark.parametrize("family", families.ALL, indirect=True)
def test_every_family_offers_every_part_in_every_stack(family):
    assert set(pk.list_sites(family.model)["site"]) == expected_sites(family.name)


@pytest.mark.parametrize("family", families.ALL, indirect=True)
def test_every_listed_address_means_that_one_site(family):
    sitemap = SiteMap(family.model)
    for row in pk.list_sites(family.model).itertuples():
        (here,) = sitemap.resolve(parse_site(row.site))
        assert (here.name, here.part, here.stack) == (row.hook, row.part, row.stack)
        assert here.hook is family.model.hook_dict[row.hook]
        assert (here.write == "refused", here.why_not) == (row.edit == "refused", row.note)


@pytest.mark.parametrize("family", families.ALL, indirect=True)
def test_axes_of_the_table_are_those_of_the_tensors(family):
    seen: dict[str, tuple[int, ...]] = {}

    def look(tensor: Tensor, hook: HookPoint) -> None:
        seen[names[id(hook)]] = tuple(tensor.shape)

    table = pk.list_sites(family.model)
    names = {id(family.model.hook_dict[name]): name for name in table["hook"]}
    with family.model.hooks(fwd_hooks=[(name, look) for name in table["hook"]]):
        family.run()
    for row in table.itertuples():
        axes = row.dims.split()
        if row.hook == "vision_ln_final.hook_out":  # class token only
            axes.remove("pos")
        assert len(seen[row.hook]) == len(axes), row.site
        heads = [int(axis.removeprefix("head=")) for axis in axes if axis.startswith("head=")]
        _, n_heads = STACKS[family.name][0].get(row.stack, (0, 0))
        if heads:
            assert heads == [n_heads] == [seen[row.hook][[a[:4] for a in axes].index("head")]]


def test_list_sites_of_a_model_whose_scores_come_late():
    model = late_scores(layers=1)
    table = pk.list_sites(model)
    assert list(table.columns) == ["site", "stack", "layer", "part", "hook", "dims", "edit", "note"]
    assert table["layer"].dtype == pd.Int64Dtype()
    refused = table[table["edit"] == "refused"]
    assert list(refused["site"]) == ["0.scores"]
    assert list(refused["note"]) == [
        "the hook fires after the softmax and holds the pattern; edit 'pattern' instead, or load "
        "the model with pk.load, whose attention has live scores"
    ]
    row = table[table["site"] == "0.pattern"].iloc[0].to_dict()
    assert row == {
        "site": "0.pattern",
        "stack": "",
        "layer": 0,
        "part": "pattern",
        "hook": "blocks.0.attn.hook_pattern",
        "dims": "batch head=2 query key",
        "edit": "causal",
        "note": "",
    }


@pytest.mark.parametrize(
    ("name", "address", "found"),
    [
        ("native", "z", ["0.z", "1.z"]),
        ("native", "-1.z", ["1.z"]),
        ("native", "-2.z:1", ["0.z:1"]),
        ("native", "0:1.z", ["0.z"]),
        ("native", "1:.z", ["1.z"]),
        ("native", "::-1.z", ["0.z", "1.z"]),
        ("native", "*.z", ["0.z", "1.z"]),
        ("native", "logits", ["logits"]),
        (
            "t5",
            "0.pattern",
            ["encoder.0.pattern", "decoder.0.self.pattern", "decoder.0.cross.pattern"],
        ),
        ("t5", "-1.self.pattern", ["decoder.1.self.pattern"]),
        ("t5", "cross.z:3", ["decoder.0.cross.z:3", "decoder.1.cross.z:3"]),
        ("t5", "encoder.z", ["encoder.0.z", "encoder.1.z"]),
        ("t5", "embed", ["encoder.embed", "decoder.embed"]),
        ("clip", "-1.z", ["text.1.z", "vision.2.z"]),
        ("clip", "2.z", ["vision.2.z"]),
        ("clip", "vision.1:3.z:1", ["vision.1.z:1", "vision.2.z:1"]),
    ],
)
def test_what_an_address_means(built, name, address, found):
    found_sites = SiteMap(built(name).model).resolve(parse_site(address))
    assert [str(site) for site in found_sites] == found


@pytest.mark.parametrize(
    ("name", "address", "message"),
    [
        ("native", "7.z", "site '7.z': no layer matches 7; blocks has layers 0 to 1; closest: 1"),
        (
            "native",
            "-3.z",
            "site '-3.z': no layer matches -3; blocks has layers 0 to 1; closest: 0",
        ),
        (
            "native",
            "5:.z",
            "site '5:.z': no layer matches slice(5, None, None); blocks has layers 0 to 1",
        ),
        (
            "clip",
            "9.z",
            "site '9.z': no layer matches 9; text has layers 0 to 1, vision has layers 0 to 2; "
            "closest: 2",
        ),
        (
            "native",
            "0.z:2",
            "site '0.z:2': head 2 does not exist at 0.z, which has heads 0 to 1; closest: 1",
        ),
        (
            "clip",
            "0.pattern:2",
            "site '0.pattern:2': head 2 does not exist at vision.0.pattern, which has heads "
            "0 to 1; closest: 1",
        ),
        (
            "t5",
            "encodr.0.z",
            "site 'encodr.0.z': unknown stack 'encodr'; valid: decoder, encoder; "
            "closest: 'encoder', 'decoder'",
        ),
        (
            "clip",
            "audio.z",
            "site 'audio.z': unknown stack 'audio'; valid: text, vision",
        ),
        (
            "native",
            "encoder.0.z",
            "site 'encoder.0.z': 'z' belongs to no named stack here; leave it out",
        ),
        (
            "t5",
            "decoder.logits",
            "site 'decoder.logits': 'logits' belongs to no named stack here; leave it out",
        ),
        (
            "native",
            "cross.z",
            "site 'cross.z': 'z' belongs to no named attn here; leave it out",
        ),
        (
            "vit",
            "logits",
            "site 'logits': this model has no 'logits'; it has: embed, resid_pre, ln1, ln2, q, k, "
            "v, scores, pattern, z, attn_out, resid_mid, mlp_pre, mlp_post, mlp_out, resid_post, "
            "ln_final",
        ),
    ],
)
def test_an_address_that_the_model_does_not_have(built, name, address, message):
    with pytest.raises(pk.SiteError) as error:
        SiteMap(built(name).model).resolve(parse_site(address))
    assert str(error.value) == message


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hook_resid_pre, self.hook_resid_post = HookPoint(), HookPoint()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.hook_resid_pre(x)
        return self.hook_resid_post(x + self.linear(x))


class Plain(HookedRootModule):
    """A model of somebody else: hook points under TransformerLens's names, and no bridge."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(), Block()])
        self.setup()

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


class Bare(nn.Module):
    """The same without HookedRootModule: hook points are found as submodules."""

    blocks: nn.ModuleList
    forward = Plain.forward

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(), Block()])


@pytest.mark.parametrize("cls", [Plain, Bare])
def test_any_module_with_hook_points_works(cls):
    model, x = cls(), torch.randn(2, 3, 4)
    assert list(pk.list_sites(model)["site"]) == [
        "0.resid_pre",
        "0.resid_post",
        "1.resid_pre",
        "1.resid_post",
    ]
    first, second = (block.linear for block in model.blocks)
    middle = 2 * (x + first(x))
    with pk.attach(
        model, pk.Edit("0.resid_post", lambda t: 2 * t), pk.Record("1.resid_pre")
    ) as run:
        output = model(x)
    torch.testing.assert_close(run["record"].values, middle.detach())
    torch.testing.assert_close(output, middle + second(middle))


def test_a_model_without_hook_points_is_refused():
    with pytest.raises(pk.SiteError) as error:
        pk.attach(nn.Linear(2, 2), pk.VDI())
    assert str(error.value) == (
        "Linear has no TransformerLens hook points under names such as "
        "'blocks.0.attn.hook_pattern'; load it with pk.load(..., hf_model=...) or wrap it in a "
        "TransformerBridge"
    )


def test_names_alone_tell_one_model_from_another():
    """Blocks are read from the names once; another model may have as many."""
    named = [
        HookPoints({f"{blocks}.0.hook_resid_pre": HookPoint()}, found_from=())
        for blocks in ("blocks", "text_blocks", "blocks")
    ]
    found = [[str(site) for site in find_sites(nn.Module(), hooks)] for hooks in named]
    assert found == [["0.resid_pre"], ["text.0.resid_pre"], ["0.resid_pre"]]


def test_the_names_are_those_of_the_components_that_are_there_now():
    model = families.bert().model
    before = hook_points(model)
    assert hook_points(model) is before
    attn = model.blocks[1].attn
    attn.hook_aliases = {**attn.hook_aliases, "hook_mine": "hook_pattern"}
    after = hook_points(model)
    assert after["blocks.1.attn.hook_mine"] is attn.hook_pattern
    model.hook_new = HookPoint()
    assert hook_points(model)["hook_new"] is model.hook_new
    assert hook_points(copy.deepcopy(model))["hook_new"] is not model.hook_new
    model.hook_aliases = {**model.hook_aliases, "hook_mine": "blocks.0.hook_out"}
    assert hook_points(model)["hook_mine"] is model.blocks[0].hook_out


def test_a_model_is_looked_through_once_however_deep(monkeypatch):
    seen: list[nn.Module] = []
    real = seam.serves
    monkeypatch.setattr(seam, "serves", lambda model: (seen.append(model), real(model))[1])
    model = families.bert().model
    seen.clear()
    with pytest.raises(pk.HookNeverFiredError), pk.attach(model, pk.VDI()):
        pass
    assert seen == [model]
