"""A permuted network is the same function; an aligned donor has the donor's own patterns."""

import pytest
import torch
from scipy.stats import ortho_group

import probekit as pk
from probekit.hooked.model import load_weights, weights
from probekit.training import aligned_attention, permute_features, permuted_twin

SIZES = {"d_model": 16, "d_head": 4, "n_heads": 4, "d_mlp": 24, "n_ctx": 8, "d_vocab": 12}
CARDS = {"interleaved": {}, "tiny-stories": {"n_layers": 2}}
TOKENS = torch.randint(0, 12, (30, 8), generator=torch.Generator().manual_seed(0))


def perturbed(card, seed=0):
    """A network whose gains and biases are not those of its initialisation."""
    model = pk.load(card, seed=seed, **SIZES, **CARDS[card])
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in weights(model).values():
            tensor += 0.3 * torch.randn(tensor.shape, generator=generator)
    return model


def pattern(model, *items, layer=0):
    record = pk.Record(f"{layer}.pattern", name="pattern")
    with torch.no_grad(), pk.attach(model, *items, record) as run:
        model(TOKENS)
    return run["pattern"].values


@pytest.mark.parametrize("card", CARDS)
def test_a_permuted_twin_computes_the_same_in_another_order(card):
    model = perturbed(card)
    twin = permuted_twin(model, seed=3)
    torch.testing.assert_close(twin(TOKENS), model(TOKENS), rtol=1e-4, atol=1e-4)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(3))
    last = f"{model.cfg.n_layers - 1}.resid_post"
    with torch.no_grad(), pk.attach(model, pk.Record(last, name="x")) as run:
        model(TOKENS)
    with torch.no_grad(), pk.attach(twin, pk.Record(last, name="x")) as run_of_twin:
        twin(TOKENS)
    x, y = run["x"].values, run_of_twin["x"].values
    torch.testing.assert_close(y, x[..., order], rtol=1e-4, atol=1e-4)


def test_permuting_by_the_inverse_order_gives_the_weights_back():
    own = weights(perturbed("interleaved"))
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    there = permute_features(own, order)
    back = permute_features(there, order.argsort())
    for name, tensor in own.items():
        assert torch.equal(back[name], tensor)
        features_of_its_own = ("q.bias", "k.bias", "v.bias", "fc_in.bias", "head.bias")
        assert torch.equal(there[name], tensor) == name.endswith(features_of_its_own)


@pytest.mark.parametrize(("card", "layer"), [("interleaved", 0), ("tiny-stories", 1)])
def test_an_aligned_permuted_twin_changes_nothing(card, layer):
    model = perturbed(card)
    twin = permuted_twin(model, seed=3)
    aligned, fit = aligned_attention(model, twin, TOKENS, ("Q", "K", "V"), layer)
    assert fit.cosine == pytest.approx(1, abs=1e-6)
    before = model(TOKENS)
    with pk.attach(model, pk.SwapWeights(twin, ("Q", "K", "V"), layers=(layer,))):
        assert (model(TOKENS) - before).abs().max() > 0.5
    with pk.attach(model, pk.SwapWeights(aligned, ("Q", "K", "V"), layers=(layer,))):
        torch.testing.assert_close(model(TOKENS), before, rtol=1e-4, atol=1e-3)


def test_any_rotation_scale_and_shift_of_what_attention_reads_is_undone():
    model, donor = perturbed("interleaved"), perturbed("interleaved", seed=1)
    # The donor reads A's embeddings, rotated, doubled and shifted, and attends by its own Q and K.
    rotation = torch.from_numpy(ortho_group.rvs(16, random_state=0)).float()
    embeddings = {name: weights(model)[name] for name in ("tok_embed.weight", "pos.weight")}
    moved = {name: 2 * tensor @ rotation for name, tensor in embeddings.items()}
    moved["pos.weight"] = moved["pos.weight"] + torch.arange(16.0) / 4
    load_weights(donor, {**weights(donor), **moved})
    aligned, fit = aligned_attention(model, donor, TOKENS)
    torch.testing.assert_close(fit.rotation.float(), rotation, rtol=0, atol=1e-4)
    assert fit.scale == pytest.approx(2, rel=1e-5)
    swapped = pattern(model, pk.SwapWeights(aligned, ("Q", "K")))
    torch.testing.assert_close(swapped, pattern(donor), rtol=1e-3, atol=1e-4)


def test_refusals_name_the_reason():
    model = pk.load("interleaved", seed=0, **SIZES)
    with pytest.raises(pk.ProbekitError) as raised:
        aligned_attention(model, model, TOKENS, ("Q", "O"))
    assert str(raised.value) == "aligned_attention has parts of Q, K and V, not ('Q', 'O')"
    bare = pk.load("interleaved", seed=0, attention_bias=False, **SIZES)
    with pytest.raises(pk.ProbekitError) as raised:
        aligned_attention(bare, bare, TOKENS)
    assert str(raised.value) == (
        "aligned_attention moves the means into biases, and 0.Q.weight has none; load the models "
        "with attention_bias=True"
    )
