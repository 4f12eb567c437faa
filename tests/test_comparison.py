"""compare: copies, rotated copies, unrelated models, padding; values and nulls against loops."""

import copy
import itertools
from typing import Any

import families
import numpy as np
import pytest
import torch
from families import tiny_native, token_ids
from torch import Tensor
from transformer_lens import HookedRootModule
from transformer_lens.hook_points import HookPoint

import probekit as pk
from probekit.geometry import cka, cka_null

NAMES = ["pattern_cosine", "residual_cosine", "cka", "procrustes"]


class Given(HookedRootModule):
    """A model that holds the given pattern and residual, whatever its input."""

    def __init__(self, pattern: Tensor, residual: Tensor) -> None:
        super().__init__()
        self.pattern, self.residual = pattern, residual
        block, attn = HookedRootModule(), HookedRootModule()
        attn.hook_pattern, block.hook_resid_post = HookPoint(), HookPoint()
        block.attn, self.blocks = attn, torch.nn.ModuleList([block])
        self.setup()

    def forward(self, *_: Any, **__: Any) -> Tensor:
        self.blocks[0].attn.hook_pattern(self.pattern)
        return self.blocks[0].hook_resid_post(self.residual)


def given(seed: int, batch: int = 3, length: int = 5, width: int = 4) -> Given:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(batch, 2, length, length, generator=generator, dtype=torch.float64)
    mask = torch.ones(length, length).tril().bool()
    pattern = scores.masked_fill(~mask, -torch.inf).softmax(-1)
    residual = torch.randn(batch, length, width, generator=generator, dtype=torch.float64)
    return Given(pattern, residual)


def cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b / (a.norm() * b.norm()))


def rotated(model: Given) -> Given:
    """The same patterns; the residual in another basis, scaled and shifted."""
    width = model.residual.shape[-1]
    turn = torch.linalg.qr(torch.randn(width, width, dtype=torch.float64))[0]
    return Given(model.pattern, 3 * model.residual @ turn + 0.1)


@pytest.mark.parametrize("family", ["native", "gpt2", "bert", "t5", "clip"], indirect=True)
def test_a_copy_reads_one(family):
    # Built again: a deep copy of TransformerLens's T5 goes on calling the original's blocks.
    twin = families.ALL[family.name]().model
    result = pk.compare(family.model, twin, *family.args, **family.kwargs)
    assert list(result) == NAMES
    for name, measurement in result.items():
        there = measurement.values[~measurement.values.isnan()]
        assert there.numel()
        assert there.dtype == torch.float64
        torch.testing.assert_close(there, torch.ones_like(there), rtol=0, atol=1e-6)
        assert measurement.null is not None and measurement.name == name
        assert (measurement.null.isnan() == measurement.values.isnan()).all()
        assert (measurement.null <= 1 + 1e-6)[~measurement.null.isnan()].all()


def test_dimensions(built):
    native, clip = built("native"), built("clip")
    result = pk.compare(native.model, native.model, *native.args)
    assert result["pattern_cosine"].dims == ("layer", "head")
    assert {result[name].dims for name in NAMES[1:]} == {("layer",)}
    result = pk.compare(clip.model, clip.model, **clip.kwargs, site="resid_pre")
    assert result["pattern_cosine"].dims == ("stack", "layer", "head")
    assert result["cka"].dims == ("stack", "layer")
    assert result["cka"].provenance == {"probe": "compare", "site": "resid_pre", "seed": 0}


def test_another_basis_hides_from_the_cosine_alone():
    a = given(0, batch=40, length=5, width=16)
    result = pk.compare(a, rotated(a))
    assert abs(float(result["residual_cosine"].values)) < 0.25
    assert float(result["cka"].values) == pytest.approx(1)
    assert float(result["procrustes"].values) == pytest.approx(1)
    assert abs(float(result["procrustes"].null)) < 0.25


def test_unrelated_models_read_their_nulls():
    result = pk.compare(given(0, 40), given(1, 40))
    for name in NAMES:
        torch.testing.assert_close(result[name].values, result[name].null, rtol=0, atol=0.1)
    # Causal rows are alike for nothing.
    assert (result["pattern_cosine"].null > 0.6).all()


def test_patterns_are_what_loops_give():
    a, b = given(0), given(1)
    result = pk.compare(a, b)["pattern_cosine"]
    for head in range(2):

        def between(i: int, j: int, head: int = head) -> float:
            rows = zip(a.pattern[i, head], b.pattern[j, head], strict=True)
            return float(np.mean([cosine(p, q) for p, q in rows]))

        own = np.mean([between(i, i) for i in range(3)])
        others = np.mean([between(i, j) for i, j in itertools.permutations(range(3), 2)])
        assert float(result.values[0, head]) == pytest.approx(own)
        assert float(result.null[0, head]) == pytest.approx(others)
    assert result.null_name == "patterns of model_b on another example, mean over all pairs"


def test_the_pattern_null_of_one_example_is_uniform_attention():
    a, b = given(0, batch=1), given(1, batch=1)
    result = pk.compare(a, b)["pattern_cosine"]
    uniform = torch.ones(5, 5, dtype=torch.float64).tril()
    expected = np.mean([cosine(p, q) for p, q in zip(a.pattern[0, 1], uniform, strict=True)])
    assert float(result.null[0, 1]) == pytest.approx(expected)
    assert result.null_name == "uniform attention of model_b under the same mask"


def test_patterns_of_position_alone_are_their_own_null():
    """What does not depend on the input is as alike on another one."""
    a, b = given(0), given(1)
    a.pattern, b.pattern = (m.pattern[:1].expand(3, -1, -1, -1) for m in (a, b))
    result = pk.compare(a, b)["pattern_cosine"]
    torch.testing.assert_close(result.values, result.null)


def test_residuals_are_what_loops_give():
    a, b = given(0), given(1)
    result = pk.compare(a, b)
    x, y = a.residual.flatten(0, 1), b.residual.flatten(0, 1)
    pairs = {(i, j): cosine(x[i], y[j]) for i, j in itertools.product(range(15), repeat=2)}
    own = np.mean([pairs[i, i] for i in range(15)])
    others = np.mean([value for (i, j), value in pairs.items() if i != j])
    assert float(result["residual_cosine"].values) == pytest.approx(own)
    assert float(result["residual_cosine"].null) == pytest.approx(others)
    assert float(result["cka"].values) == pytest.approx(cka(x, y))
    assert float(result["cka"].null) == pytest.approx(cka_null(x, y))


def test_the_seed_draws_split_and_permutation():
    a, b = given(0), given(1)
    first, again, other = (pk.compare(a, b, seed=s)["procrustes"] for s in (0, 0, 1))
    assert first.values == again.values and first.null == again.null
    assert first.values != other.values and first.null != other.null
    assert other.null_name == "vectors of model_b permuted, seed 1"


def test_padding_is_left_out():
    a, b = given(0), given(1)
    mask = torch.ones(3, 5)
    mask[1, 2:] = 0
    clean = pk.compare(a, b, attention_mask=mask)
    for model in (a, b):
        model.residual[1, 2:] = 100
    dirty = pk.compare(a, b, attention_mask=mask)
    for name in NAMES[1:]:
        assert torch.equal(dirty[name].values, clean[name].values)
        assert torch.equal(dirty[name].null, clean[name].null)
    assert not torch.equal(pk.compare(a, b)["cka"].values, clean["cka"].values)


def test_padding_does_not_move_a_bert(built):
    family = built("bert")
    other = families.bert().model
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    ids, mask = family.args[0], family.kwargs["attention_mask"]
    short = pk.compare(family.model, other, ids, attention_mask=mask)
    longer = torch.nn.functional.pad(ids, (0, 3), value=5)
    padded = torch.nn.functional.pad(mask, (0, 3))
    long = pk.compare(family.model, other, longer, attention_mask=padded)
    for name in NAMES:
        torch.testing.assert_close(long[name].values, short[name].values, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(long[name].null, short[name].null, rtol=1e-4, atol=1e-4)


def test_each_stack_has_its_own_mask(built):
    """Encoder and decoder of one length: the encoder's padding is not the decoder's."""
    family = built("t5")
    ids, mask = token_ids(), families.padding_mask()
    arguments = {"attention_mask": mask, "decoder_input": ids, "site": "0.resid_post"}
    other = families.t5().model
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    result = pk.compare(family.model, other, ids, **arguments)["cka"]
    records = [pk.Record(f"{stack}.0.resid_post", name=stack) for stack in ("encoder", "decoder")]
    kept = []
    for model in (family.model, other):
        with torch.no_grad(), pk.attach(model, *records) as run:
            model(ids, attention_mask=mask, decoder_input=ids)
        kept.append(run)
    real = mask.bool()
    encoder = [run["encoder"].values[real] for run in kept]
    decoder = [run["decoder"].values.flatten(0, 1) for run in kept]
    order = list(result.coords["stack"])
    assert float(result.values[order.index("encoder"), 0]) == pytest.approx(cka(*encoder), rel=1e-5)
    assert float(result.values[order.index("decoder"), 0]) == pytest.approx(cka(*decoder), rel=1e-5)


def test_both_models_are_left_alone():
    model, other = tiny_native(0), tiny_native(1)
    before = torch.get_rng_state()
    hooks = [len(point.fwd_hooks) for point in model.hook_dict.values()]
    pk.compare(model, other, token_ids())
    assert torch.equal(torch.get_rng_state(), before)
    assert [len(point.fwd_hooks) for point in model.hook_dict.values()] == hooks
    assert all(parameter.grad is None for parameter in model.parameters())


def test_dropout_is_drawn_alike(built):
    model = copy.deepcopy(built("gpt2").model).train()
    result = pk.compare(model, copy.deepcopy(model), token_ids())
    torch.testing.assert_close(result["cka"].values, torch.ones(2, dtype=torch.float64))


def test_models_of_different_depth_are_refused():
    with pytest.raises(pk.ProbekitError) as error:
        pk.compare(tiny_native(n_layers=1), tiny_native(n_layers=2), token_ids())
    assert str(error.value) == (
        "compare needs models with the same sites; only model_b has 1.pattern, 1.resid_post"
    )


def test_models_of_different_width_are_refused():
    with pytest.raises(pk.ProbekitError) as error:
        pk.compare(given(0), given(0, width=6))
    assert str(error.value) == (
        "compare needs activations of one shape; different are 0.resid_post: (3, 5, 4) and "
        "(3, 5, 6). pk.geometry.cka compares vectors of different width"
    )


def test_too_few_vectors():
    with pytest.raises(pk.ProbekitError) as error:
        pk.compare(given(0, 1, 3), given(1, 1, 3))
    assert str(error.value) == (
        "compare needs 4 vectors or more at each site; there are {'0.resid_post': 3}"
    )


def test_a_site_without_vectors():
    with pytest.raises(pk.ProbekitError) as error:
        pk.compare(given(0), given(1), site="pattern")
    assert str(error.value) == "compare reads vectors such as resid_post, not 'pattern'"
