"""Native models against plain PyTorch: padding, masks, seeds and what they do not support."""

import math

import pytest
import torch
from checks import same_weights
from families import run, tiny_native, token_ids
from torch import Tensor

import probekit as pk
from probekit.hooked.model import weights

IDS = token_ids()


def plain_forward(w: dict[str, Tensor], ids: Tensor, heads: int, causal: bool) -> Tensor:
    """A pre-LN transformer with exact GELU, written from its definition."""

    def norm(x: Tensor, name: str) -> Tensor:
        mean, variance = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, unbiased=False)
        return (x - mean) / (variance + 1e-5).sqrt() * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", torch.zeros(()))

    length = ids.shape[1]
    x = w["tok_embed.weight"][ids] + w["pos.weight"][:length]
    layer = 0
    while f"layers.{layer}.ln1.weight" in w:
        at = f"layers.{layer}"
        normed = norm(x, f"{at}.ln1")
        q, k, v = (linear(normed, f"{at}.attn.{part}").unflatten(-1, (heads, -1)) for part in "qkv")
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(q.shape[-1])
        if causal:
            hidden = torch.arange(length)[:, None] < torch.arange(length)
            scores = scores.masked_fill(hidden, -torch.inf)
        weights = scores.exp() / scores.exp().sum(-1, keepdim=True)
        z = torch.einsum("bhqk,bkhd->bqhd", weights, v).flatten(-2)
        x = x + linear(z, f"{at}.attn.o")
        inner = linear(norm(x, f"{at}.ln2"), f"{at}.mlp.fc_in")
        gelu = inner * (1 + torch.erf(inner / math.sqrt(2))) / 2
        x = x + linear(gelu, f"{at}.mlp.fc_out")
        layer += 1
    return linear(norm(x, "ln_out"), "head")


@pytest.mark.parametrize("direction", ["causal", "bidirectional"])
@pytest.mark.parametrize("bias", [False, True])
def test_a_native_model_is_the_plain_transformer(direction, bias):
    model = tiny_native(dtype=torch.float64, attention_dir=direction, attention_bias=bias)
    own = {name: tensor.detach() for name, tensor in weights(model).items()}
    expected = plain_forward(own, IDS, heads=2, causal=direction == "causal")
    torch.testing.assert_close(run(model, IDS), expected, rtol=0, atol=1e-6)
    with pk.attach(model, pk.VDI()):  # not SDPA
        torch.testing.assert_close(run(model, IDS), expected, rtol=0, atol=1e-6)


def test_the_grokking_card_has_no_attention_biases():
    names = set(weights(pk.load("grokking", seed=0)))
    assert not {name for name in names if ".attn." in name and name.endswith("bias")}
    with_bias = set(weights(pk.load("grokking", seed=0, attention_bias=True)))
    assert with_bias - names == {f"layers.0.attn.{part}.bias" for part in "qkvo"}


@pytest.mark.parametrize("direction", ["causal", "bidirectional"])
@pytest.mark.parametrize("tapped", [False, True])
def test_padding_does_not_reach_the_real_positions(direction, tapped):
    model = tiny_native(attention_dir=direction)
    mask = torch.ones(3, 7, dtype=torch.long)
    mask[1, 4:], mask[2, 6:] = 0, 0
    items = [pk.VDI()] if tapped else []
    with pk.attach(model, *items):
        padded = run(model, IDS, attention_mask=mask)
        for example, length in enumerate(mask.sum(-1).tolist()):
            alone = run(model, IDS[example : example + 1, :length])
            torch.testing.assert_close(padded[example, :length], alone[0], rtol=0, atol=1e-5)


def test_padding_on_the_left_leaves_no_nan():
    model = tiny_native()
    mask = torch.ones(3, 7, dtype=torch.long)
    mask[0, :3] = 0
    assert run(model, IDS, attention_mask=mask).isfinite().all()
    with pk.attach(model, pk.VDI()) as attached:
        assert run(model, IDS, attention_mask=mask).isfinite().all()
    # Queries 0 to 2 of the first example are padding: T is 4 there.
    total = math.lgamma(5) / math.log(4) + 2 * math.lgamma(8) / math.log(7)
    assert float(attached["vdi"].null[0, 0]) == pytest.approx(total / 18, abs=1e-6)


def test_a_mask_of_another_shape_is_refused():
    model = tiny_native()
    with pytest.raises(pk.CardError) as error:
        run(model, IDS, attention_mask=torch.ones(3, 1, 7, 7))
    assert str(error.value) == (
        "a native model takes attention_mask [batch, pos], not (3, 1, 7, 7)"
    )


@pytest.mark.parametrize("init_weights", [False, True])
def test_seeds_reproduce_and_leave_the_global_generator_alone(init_weights):
    before = torch.get_rng_state()
    one, again, other, fresh, fresher = (
        tiny_native(seed, init_weights=init_weights) for seed in (3, 3, 4, None, None)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert same_weights(one, again)
    assert not same_weights(one, other)
    assert not same_weights(fresh, fresher) and not same_weights(fresh, one)


def test_overrides_replace_fields_of_the_config():
    model = pk.load("grokking", seed=0, n_layers=3, d_mlp=32)
    assert (model.cfg.n_layers, model.cfg.d_mlp, model.cfg.n_heads) == (3, 32, 2)
    assert weights(model)["layers.2.mlp.fc_in.weight"].shape == (32, 64)


def test_dtype_and_device():
    model = tiny_native(device="cpu", dtype=torch.float64)
    assert {tensor.dtype for tensor in weights(model).values()} == {torch.float64}
    assert run(model, IDS).dtype == torch.float64


def test_a_card_by_its_path(tmp_path):
    text = 'title = "t"\nsource = "native"\n[config]\nn_layers = 1\nn_heads = 1\nd_model = 4\n'
    text += 'd_head = 4\nn_ctx = 7\nd_vocab = 50\nact_fn = "relu"\nnormalization_type = "LN"\n'
    path = tmp_path / "own.toml"
    path.write_text(text)
    model = pk.load(path, seed=0)
    assert model.cfg.model_name == "own"
    assert run(model, IDS).shape == (3, 7, 50)
