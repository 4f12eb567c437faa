"""Causal attention: unedited it is Hugging Face's, edited it is the edit's consequence."""

import copy
import math
from typing import Any

import families
import pytest
import torch
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module
from transformers import BertConfig, BertForMaskedLM, T5Config, T5ForConditionalGeneration

import probekit as pk
from probekit import seam
from probekit.hooked.adapters import register_adapters
from probekit.site import parse_site

PATTERNS = [
    (name, pattern) for name, build in families.SEAM.items() for pattern in build().attentions
]
NATIVE_TOO = [("native", "0.pattern"), *PATTERNS]


def identity(tensor: Tensor) -> Tensor:
    return tensor


def assert_close_to_largest(actual: Tensor, expected: Tensor) -> None:
    """To 1e-5 of the largest output: the rounding of SDPA against eager attention."""
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


# Unedited


@pytest.mark.parametrize("family", families.SEAM, indirect=True)
def test_unedited_output_is_that_of_eager_attention(family):
    assert_close_to_largest(family.run(), family.reference())


@pytest.mark.parametrize("part", ["pattern", "scores"])
@pytest.mark.parametrize("family", families.SEAM, indirect=True)
def test_identity_taps_give_eager_attention_exactly(family, part):
    with pk.attach(family.model, pk.Edit(part, identity)) as run:
        tapped = family.run()
    assert set(run.fired.values()) == {1}
    assert torch.equal(tapped, family.reference())


@pytest.mark.parametrize("family", families.SEAM, indirect=True)
def test_observers_leave_eager_attention_exact(family):
    with pk.attach(family.model, pk.VDI(), pk.Record("0.scores")):
        assert torch.equal(family.run(), family.reference())


@pytest.fixture
def sdpa_calls(monkeypatch) -> list[nn.Module]:
    """The modules that were computed by SDPA, in order."""
    calls: list[nn.Module] = []
    real = seam.sdpa_attention_forward

    def spy(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        calls.append(module)
        return real(module, *args, **kwargs)

    monkeypatch.setattr(seam, "sdpa_attention_forward", spy)
    return calls


# One call of SDPA for each attention of the model, cross-attention and both towers included.
ATTENTIONS = {"bert": 2, "bert encoder": 2, "t5": 6, "vit": 2, "clip": 5, "dinov2": 2, "native": 2}


@pytest.mark.parametrize("family", ATTENTIONS, indirect=True)
def test_sdpa_runs_where_neither_scores_nor_pattern_is_hooked(family, sdpa_calls):
    family.run()
    assert len(sdpa_calls) == ATTENTIONS[family.name]
    sdpa_calls.clear()
    with pk.attach(family.model, pk.HeadScale(layer=0, head=0, omega=0.5)):
        family.run()
    assert len(sdpa_calls) == ATTENTIONS[family.name]
    sdpa_calls.clear()
    with pk.attach(family.model, pk.VDI(site=family.attentions[0])):
        family.run()
    assert len(sdpa_calls) == ATTENTIONS[family.name] - 1


# Edited


def scores_by_hand(family: families.Family, site: str, q: Tensor, k: Tensor) -> Tensor:
    """q·k times the family's scale, plus position bias and mask, built from the eager model."""
    t5 = family.name == "t5"
    scale = 1.0 if t5 else q.shape[-1] ** -0.5
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) * scale
    queries, keys = scores.shape[-2:]
    cross = ".cross." in site
    if t5 and not cross:
        stack = site.split(".")[0]
        first = getattr(family.eager, stack).block[0].layer[0].SelfAttention
        scores = scores + first.compute_bias(queries, keys).detach()
    causal = site.startswith(("decoder.0.self", "text."))
    if causal or family.name == "native":
        scores = scores.masked_fill(~torch.ones(queries, keys).tril().bool(), -torch.inf)
    padded = family.kwargs.get("attention_mask")
    if padded is not None and not site.startswith(("decoder.0.self", "vision.")):
        scores = scores.masked_fill(padded[:, None, None] == 0, -torch.inf)
    return scores


@pytest.mark.parametrize(("name", "site"), NATIVE_TOO)
def test_half_of_one_head_s_pattern_is_what_a_recomputation_gives(built, name, site):
    family, at = built(name), site.removesuffix("pattern")
    clean = family.run()
    records = [pk.Record(f"{at}{part}", name=part) for part in ("q", "k", "v", "z", "pattern")]
    half = pk.SetPattern(lambda pattern: 0.5 * pattern, site=f"{site}:1")
    with pk.attach(family.model, half, *records) as run:
        edited = family.run()
    q, k, v, z, pattern = (run[part].values for part in ("q", "k", "v", "z", "pattern"))

    expected = scores_by_hand(family, site, q, k).softmax(-1)
    expected[:, 1] *= 0.5
    torch.testing.assert_close(pattern, expected, rtol=0, atol=1e-5)
    expected_z = torch.einsum("bhqk,bkhd->bqhd", expected, v)
    torch.testing.assert_close(z, expected_z, rtol=0, atol=1e-5)
    assert (edited - clean).abs().max() > 1e-4 * clean.abs().max()


@pytest.mark.parametrize(("name", "site"), NATIVE_TOO)
def test_the_output_follows_from_the_edited_z_alone(built, name, site):
    """Halving a head's pattern equals halving its z: nothing else may have changed."""
    family = built(name)
    z_site = site.replace("pattern", "z:1")
    half = pk.SetPattern(lambda pattern: 0.5 * pattern, site=f"{site}:1")
    with pk.attach(family.model, half):
        by_pattern = family.run()
    with pk.attach(family.model, pk.Edit(z_site, lambda z: 0.5 * z)):
        by_z = family.run()
    assert_close_to_largest(by_pattern, by_z)


@pytest.mark.parametrize(("name", "site"), NATIVE_TOO)
def test_a_masked_score_is_a_renormalised_pattern(built, name, site):
    family, scores_site = built(name), site.replace("pattern", "scores")

    def hide_first_key(scores: Tensor) -> Tensor:
        hidden = scores.clone()
        hidden[:, :, 1:, 0] = -torch.inf
        return hidden

    def renormalised(pattern: Tensor) -> Tensor:
        rest = pattern.clone()
        rest[:, :, 1:, 0] = 0
        return rest / rest.sum(-1, keepdim=True)

    with pk.attach(family.model, pk.Edit(scores_site, hide_first_key)):
        by_scores = family.run()
    with pk.attach(family.model, pk.SetPattern(renormalised, site=site)):
        by_pattern = family.run()
    assert_close_to_largest(by_scores, by_pattern)
    assert (by_scores - family.run()).abs().max() > 1e-5 * by_scores.abs().max()


@pytest.mark.parametrize(("name", "site"), NATIVE_TOO)
def test_gradients_flow_through_an_edited_pattern(built, name, site):
    """The derivative of a loss in the factor on one head's pattern, against differences."""
    family = built(name)
    probe = torch.randn(family.run().shape, generator=torch.Generator().manual_seed(3))

    def loss(omega: Tensor) -> Tensor:
        item = pk.SetPattern(lambda pattern: omega * pattern, site=f"{site}:1")
        with pk.attach(family.model, item):
            output = family.output(family.model(*family.args, **family.kwargs))
        return (output * probe).sum()

    omega = torch.tensor(0.5, requires_grad=True)
    (slope,) = torch.autograd.grad(loss(omega), omega)
    step = 0.05  # in float32: of fourth order, so that the step can stay well above rounding
    with torch.no_grad():
        near = loss(omega + step) - loss(omega - step)
        far = loss(omega + 2 * step) - loss(omega - 2 * step)
    difference = (8 * near - far) / (12 * step)
    assert difference.abs() > 1e-3
    torch.testing.assert_close(slope, difference, rtol=2e-2, atol=1e-3)


# Causality of every site


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


def late_scores() -> TransformerBridge:
    """TransformerLens's own native model fires its score hook after the softmax."""
    config = {"n_layers": 2, "n_heads": 2, "d_model": 8, "d_head": 4, "d_mlp": 16, "n_ctx": 6}
    config |= {"d_vocab": 11, "act_fn": "gelu", "normalization_type": "LN", "seed": 0}
    return TransformerBridge.boot_native(config)  # type: ignore[attr-defined]


def test_every_refused_site_raises_and_every_other_is_causal():
    model, ids = late_scores(), torch.arange(6)[None]
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
    model, ids = late_scores(), torch.arange(6)[None]
    with pk.attach(model, pk.Record("0.scores"), pk.Record("0.pattern", name="pattern")) as run:
        model(ids)
    assert torch.equal(run["record"].values, run["pattern"].values)


# What the attention refuses


class Caller(nn.Module):
    is_causal = False


@pytest.mark.parametrize(
    ("argument", "meaning"),
    [("softcap", "soft-capped scores"), ("s_aux", "attention sinks"), ("cache", "a paged cache")],
)
def test_attention_that_would_be_computed_wrongly_is_refused(argument, meaning):
    q = torch.randn(1, 2, 3, 4)
    with pytest.raises(pk.ProbekitError) as error:
        seam.attention(Caller(), q, q, q, None, **{argument: torch.ones(2)})
    assert str(error.value) == (
        f"Caller uses {meaning}, which probekit's attention does not compute; load this model "
        "with TransformerLens's own bridge and eager attention"
    )
    seam.attention(Caller(), q, q, q, None, **{argument: None})


# The attention function alone


@pytest.fixture
def tapped() -> Any:
    """A calling module whose pattern is hooked, so that nothing goes to SDPA."""
    module = Caller().eval()
    taps = seam._Taps(HookPoint(), HookPoint())
    taps.pattern.add_hook(lambda pattern, hook: None)
    module.__dict__[seam._TAPS] = taps
    return module


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("mask", ["none", "boolean", "additive"])
def test_the_attention_function_against_a_loop(tapped, mask, causal):
    """Grouped heads, masks of both kinds, bias and scale, in float64 and one query at a time."""
    generator = torch.Generator().manual_seed(5)
    q = torch.randn(2, 4, 5, 3, generator=generator, dtype=torch.float64)
    k, v = torch.randn(2, 2, 2, 5, 3, generator=generator, dtype=torch.float64)
    bias = torch.randn(1, 4, 5, 5, generator=generator, dtype=torch.float64)
    visible = torch.rand(2, 1, 5, 5, generator=generator) > 0.4
    visible[..., 0] = True
    additive = torch.zeros(2, 1, 5, 5, dtype=torch.float64).masked_fill(~visible, -1e30)
    given = {"none": None, "boolean": visible, "additive": additive}[mask]
    z, weights = seam.attention(
        tapped, q, k, v, given, scaling=0.7, is_causal=causal, position_bias=bias
    )
    assert weights is None
    for batch in range(2):
        for head in range(4):
            for query in range(5):
                keys = [
                    key
                    for key in range(5)
                    if (
                        visible[batch, 0, query, key]
                        if given is not None
                        else key <= query or not causal
                    )
                ]
                logits = [
                    0.7 * float(q[batch, head, query] @ k[batch, head // 2, key])
                    + float(bias[0, head, query, key])
                    for key in keys
                ]
                total = sum(map(math.exp, logits))
                expected = sum(
                    math.exp(s) / total * v[batch, head // 2, key]
                    for s, key in zip(logits, keys, strict=True)
                )
                torch.testing.assert_close(z[batch, query, head], expected)


def test_one_query_after_a_cache_sees_every_key(tapped):
    q, kv = torch.randn(1, 2, 1, 3), torch.randn(1, 2, 4, 3)
    z, _ = seam.attention(tapped, q, kv, kv, None, is_causal=True)
    expected = ((q @ kv.transpose(2, 3)) / 3**0.5).softmax(-1) @ kv
    torch.testing.assert_close(z, expected.transpose(1, 2))


def test_later_queries_after_a_cache_see_the_keys_before_them(tapped):
    q, kv = torch.randn(1, 2, 2, 3), torch.randn(1, 2, 4, 3)
    z, _ = seam.attention(tapped, q, kv, kv, None, is_causal=True)
    first = ((q[:, :, :1] @ kv[:, :, :3].transpose(2, 3)) / 3**0.5).softmax(-1) @ kv[:, :, :3]
    torch.testing.assert_close(z[:, 0], first[:, :, 0])


# Bridges that TransformerLens built


def bert_bridge() -> tuple[TransformerBridge, nn.Module, dict[str, Tensor]]:
    config = BertConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        vocab_size=20,
        max_position_embeddings=8,
        attn_implementation="eager",
    )
    model = BertForMaskedLM(config).eval()
    eager = copy.deepcopy(model)
    ids = torch.arange(5)[None]
    bridge = build_bridge_from_module(model, "BertForMaskedLM", hf_config=model.config)
    return bridge, eager, {"input": ids}


def t5_bridge() -> tuple[TransformerBridge, nn.Module, dict[str, Tensor]]:
    register_adapters()
    config = T5Config(
        d_model=16,
        d_kv=4,
        d_ff=24,
        num_layers=2,
        num_heads=2,
        vocab_size=20,
        decoder_start_token_id=0,
        attn_implementation="eager",
    )
    model = T5ForConditionalGeneration(config).eval()
    eager = copy.deepcopy(model)
    bridge = build_bridge_from_module(model, "T5ForConditionalGeneration", hf_config=model.config)
    return bridge, eager, {"input": torch.arange(5)[None], "decoder_input": torch.arange(4)[None]}


def implementations(model: nn.Module) -> list[str | None]:
    configs = {id(config): config for _, config in seam._configs(model)}
    return [config._attn_implementation for config in configs.values()]


def tapped_modules(model: nn.Module) -> int:
    return sum(seam._TAPS in module.__dict__ for module in model.modules())


@pytest.mark.parametrize("build", [bert_bridge, t5_bridge])
def test_a_bridge_of_transformer_lens_has_the_seam_only_while_attached(build):
    bridge, eager, inputs = build()
    hf = {"input_ids": inputs["input"]}
    if "decoder_input" in inputs:
        hf["decoder_input_ids"] = inputs["decoder_input"]
    with torch.no_grad():
        expected, before = eager(**hf).logits, bridge(**inputs)
    found = implementations(bridge)
    # T5's encoder and decoder hold a config each, beside the model's own.
    assert found == ["eager"] * (3 if "decoder_input" in inputs else 1)

    with pk.attach(bridge, pk.SetPattern(lambda pattern: 0.5 * pattern)) as outer:
        assert set(implementations(bridge)) == {seam.NAME}
        with torch.no_grad(), pk.attach(bridge, pk.VDI()):
            edited = bridge(**inputs)
        assert set(implementations(bridge)) == {seam.NAME}  # the outer attachment needs it still
        with torch.no_grad():
            assert torch.equal(bridge(**inputs), edited)
    assert set(outer.fired.values()) == {2}
    assert (edited - expected).abs().max() > 1e-4

    assert implementations(bridge) == found
    assert tapped_modules(bridge) == 0
    with torch.no_grad():
        assert torch.equal(bridge(**inputs), before)
    torch.testing.assert_close(before, expected)


def test_attachments_on_one_bridge_may_end_in_any_order():
    bridge, _, inputs = bert_bridge()
    first, second = pk.attach(bridge, pk.VDI()), pk.attach(bridge, pk.VDI())
    bridge(**inputs)
    first.detach()
    bridge(**inputs)
    second.detach()
    assert (set(first.fired.values()), set(second.fired.values())) == ({1}, {2})
    assert implementations(bridge) == ["eager"]
    assert tapped_modules(bridge) == 0


def test_items_that_need_no_seam_leave_the_attention_alone():
    bridge, _, inputs = bert_bridge()
    with pk.attach(bridge, pk.HeadScale(layer=0, head=0, omega=0.5)):
        bridge(**inputs)
        assert implementations(bridge) == ["eager"]
        assert tapped_modules(bridge) == 0


@pytest.mark.parametrize("family", ["native", "bert", "t5", "clip"], indirect=True)
def test_a_deep_copy_has_a_seam_of_its_own(family):
    twin = copy.deepcopy(family.model)
    hook_name = pk.list_sites(twin).query("part == 'pattern'")["hook"].iloc[0]
    with pk.attach(twin, pk.SetPattern(lambda pattern: 0 * pattern)):
        assert torch.equal(family.run(), family.run())
        changed = family.output(twin(*family.args, **family.kwargs))
    assert (changed - family.run()).abs().max() > 1e-4
    fired: list[int] = []  # a raw hook, after an attachment has come and gone
    handle = twin.hook_dict[hook_name].add_hook(lambda pattern, hook: fired.append(1))
    twin(*family.args, **family.kwargs)
    family.run()
    assert fired == [1]
    handle.hook.remove()


# Half precision


def test_bfloat16_upcasts_the_softmax():
    family = families.bert()
    model = family.model.to(torch.bfloat16)
    eager = family.eager.to(torch.bfloat16)
    with torch.no_grad(), pk.attach(model, pk.Edit("pattern", identity)):
        ours = model(*family.args, **family.kwargs)
    with torch.no_grad():
        theirs = eager(**family.hf_kwargs).logits
    assert ours.dtype == torch.bfloat16
    assert torch.equal(ours, theirs)


def test_a_shared_config_is_never_the_switch_of_another_model():
    config = families.bert().eager.config
    first, second = BertForMaskedLM(config).eval(), BertForMaskedLM(config).eval()
    model = pk.load("minilm", hf_model=first)
    second.set_attn_implementation("eager")  # Hugging Face writes into the shared config
    receipt = pk.verify(model, pk.SetPattern(lambda pattern: pattern * 0.5), torch.arange(5)[None])
    assert receipt.output_change > 0
    assert second.config._attn_implementation == "eager"


def test_attaching_sets_the_seam_again_after_the_user_chose_another_attention():
    family = families.bert()
    family.model.original_model.set_attn_implementation("sdpa")
    items = pk.SetPattern(lambda pattern: pattern * 0.5)
    assert pk.verify(family.model, items, *family.args, **family.kwargs).output_change > 0


def test_two_bridges_that_share_a_config_keep_to_themselves():
    config = families.bert().eager.config
    config._attn_implementation = "eager"
    models = [BertForMaskedLM(config).eval() for _ in range(2)]
    first, second = (
        build_bridge_from_module(model, "BertForMaskedLM", hf_config=config).eval()
        for model in models
    )
    ids = torch.arange(5)[None]
    outer = pk.attach(first, pk.VDI())
    inner = pk.attach(second, pk.SetPattern(lambda pattern: pattern * 0.5))
    first(ids)
    outer.detach()
    edited = second(ids)
    inner.detach()
    assert not torch.equal(edited, second(ids))
    assert [model.config is config for model in models] == [True, True]
    assert config._attn_implementation == "eager"


@pytest.mark.parametrize("hidden", [-1e9, -1e4, -torch.inf, torch.finfo(torch.float32).min])
def test_any_usual_mask_value_is_a_mask(hidden):
    scores = 30 * torch.randn(2, 3, 5, 5) + torch.full((5, 5), hidden).triu(1)
    visible = seam.AttentionContext(scores).visible()
    assert torch.equal(visible, torch.ones(2, 5, 5).tril().bool())
