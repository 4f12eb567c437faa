"""The equilibrium model: its force against plain code, complex states, hooks, and wrapping."""

import copy

import pytest
import torch
from torch.func import jacrev, jvp, vjp
from torch.nn import functional as F

import probekit as pk

SIZES = {"d_model": 12, "n_heads": 3, "d_head": 4, "d_mlp": 20, "n_ctx": 6, "d_vocab": 17}


def tiny(**overrides):
    return pk.load("equilibrium", seed=0, dtype=torch.float64, **(SIZES | overrides))


@pytest.fixture
def model():
    return tiny(n_steps=12)


@pytest.fixture
def x():
    return torch.randn(2, 5, 12, dtype=torch.float64)


def plain_force(model, z, x):
    """The same force from PyTorch's own layers, without hooks."""
    total = x - (1 + model.cfg.damping) * z
    h, weights = z, dict(model.named_parameters())
    for layer in range(model.cfg.n_layers):
        own = {
            n.removeprefix(f"blocks.{layer}."): w for n, w in weights.items() if f".{layer}." in n
        }
        u = F.layer_norm(h, (12,), own["ln1.weight"], own["ln1.bias"])
        q, k, v = (
            (u @ own[f"attn.{n}.weight"].T).unflatten(-1, (3, 4)).transpose(1, 2) for n in "qkv"
        )
        if model.cfg.use_qk_norm:
            q, k = F.rms_norm(q, (4,), eps=1e-5), F.rms_norm(k, (4,), eps=1e-5)
        a = F.scaled_dot_product_attention(q, k, v, is_causal=model.cfg.attention_dir == "causal")
        more = a.transpose(1, 2).flatten(-2) @ own["attn.o.weight"].T
        u = F.layer_norm(h, (12,), own["ln2.weight"], own["ln2.bias"])
        form = "tanh" if model.cfg.act_fn == "gelu_new" else "none"
        more = more + F.gelu(u @ own["mlp.fc_in.weight"].T, approximate=form) @ (
            own["mlp.fc_out.weight"].T
        )
        total, h = total + more, h + more
    return total


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"use_qk_norm": True},
        {"attention_dir": "bidirectional"},
        {"act_fn": "gelu"},
        {"damping": 0.3, "n_layers": 2},
    ],
)
def test_force_is_that_of_plain_code(overrides, x) -> None:
    model, z = tiny(**overrides), torch.randn(2, 5, 12, dtype=torch.float64)
    torch.testing.assert_close(model.force(z, x), plain_force(model, z, x), rtol=0, atol=1e-12)


def test_a_forward_relaxes_and_reads_out(model) -> None:
    tokens = torch.tensor([[1, 2, 3, 16]])
    x = model.embed.weight[tokens] + model.pos_embed.weight[:4]
    z = x
    for _ in range(12):
        z = z + 0.1 * plain_force(model, z, x)
    torch.testing.assert_close(model(tokens), z @ model.unembed.weight.T)
    torch.testing.assert_close(model(x), model(tokens))


def test_in_single_precision_it_is_the_same_force(model, x) -> None:
    single = copy.deepcopy(model).float()
    found = single.force(x.float(), x.float())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), model.force(x, x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("overrides", [{}, {"use_qk_norm": True}, {"n_layers": 2}])
def test_the_force_is_holomorphic(overrides, x) -> None:
    model, z, d = tiny(**overrides), *torch.randn(2, 2, 5, 12, dtype=torch.float64)
    real = model.force(z, x)
    found = model.force(z.to(torch.complex128), x.to(torch.complex128))
    torch.testing.assert_close(found, real.to(torch.complex128), rtol=0, atol=1e-12)
    # A step along i d moves F by i J d, to third order (Cauchy-Riemann; complex-step derivative).
    _, derivative = jvp(lambda each: model.force(each, x), (z,), (d,))
    moved = model.force(z + 1e-6j * d, x.to(torch.complex128))
    torch.testing.assert_close(moved.imag / 1e-6, derivative, rtol=0, atol=1e-8)
    torch.testing.assert_close(moved.real, real, rtol=0, atol=1e-9)


def test_jvp_and_vjp_with_and_without_hooks(model, x) -> None:
    z, u, v = torch.randn(3, 2, 5, 12, dtype=torch.float64)

    def force(state):
        return model.force(state, x)

    def check() -> torch.Tensor:
        _, pushed = jvp(force, (z,), (v,))
        _, pull = vjp(force, z)
        torch.testing.assert_close((u * pushed).sum(), (pull(u)[0] * v).sum())
        h = 1e-6
        difference = (force(z + h * v) - force(z - h * v)) / (2 * h)
        torch.testing.assert_close(pushed, difference, rtol=0, atol=1e-7)
        return pushed

    bare = check()
    items = (pk.HeadScale(0, 1, 0.3), pk.AttentionScale(0.5), pk.VDI(), pk.Record("0.mlp_out"))
    with pk.attach(model, *items) as run:
        hooked = check()
    assert not torch.allclose(bare, hooked)
    assert run["record"].values.shape == (8, 5, 12)  # four forces of a batch of two
    torch.testing.assert_close(check(), bare)


def test_own_token_derivatives_are_the_diagonal_blocks(model, x) -> None:
    z = torch.randn(1, 5, 12, dtype=torch.float64)
    force, own = (lambda s, o=o: model.force(s, x[:1], o) for o in (False, True))
    torch.testing.assert_close(own(z), force(z), rtol=0, atol=1e-12)
    full, blocks = (jacrev(f)(z)[0, :, :, 0] for f in (force, own))  # [pos, d, pos, d]
    for t in range(5):
        torch.testing.assert_close(blocks[t, :, t], full[t, :, t], rtol=0, atol=1e-12)
        assert not blocks[t, :, [s for s in range(5) if s != t]].any()
        assert not full[t, :, t + 1 :].any()


def test_steps_are_iterations(model) -> None:
    tokens = torch.tensor([[3, 1, 2]])
    with pk.attach(
        model,
        pk.Record("0.resid_pre", iterations="all", name="all"),
        pk.Record("0.resid_pre", iterations=5, name="fifth"),
        pk.Record("0.resid_pre", iterations="first", name="first"),
        pk.Record("0.resid_pre", name="last"),
        pk.VDI(iterations="all"),
    ) as run:
        model(tokens)
    states = run["all"].values
    x = model.inject(tokens)
    assert states.shape == (12, 1, 3, 12)
    torch.testing.assert_close(states[0], x)
    torch.testing.assert_close(
        states[1:], states[:-1] + 0.1 * model.force(states[:-1, 0], x)[:, None]
    )
    torch.testing.assert_close(run["fifth"].values, states[[0, 5, 10]])
    torch.testing.assert_close(run["first"].values, states[0])
    torch.testing.assert_close(run["last"].values, states[-1])
    assert run["vdi"].values.shape == (12, 1, 3)
    assert run.fired["blocks.0.attn.hook_pattern"] == 12


def test_knockout_is_a_model_without_attention(model) -> None:
    tokens = torch.tensor([[3, 1, 2]])
    with pk.attach(model, pk.AttentionScale(0)):
        knocked = model(tokens)
    with pk.attach(model, pk.SwapWeights("zero", ("O",))):
        torch.testing.assert_close(model(tokens), knocked)
    assert not torch.allclose(model(tokens), knocked)


def test_every_site_is_causal_and_every_item_attaches(model) -> None:
    tokens = torch.tensor([[3, 1, 2, 5]])
    sites = pk.list_sites(model)
    assert set(sites["edit"]) == {"causal"}
    words = "embed resid_pre resid_post ln1 ln2 q k v scores pattern z attn_out mlp_pre mlp_post"
    assert set(sites["part"]) == {*words.split(), "mlp_out", "logits"}
    for site in sites["site"]:
        edit = pk.Edit(site, lambda a: a + 0.1 * torch.randn_like(a))
        assert pk.verify(model, edit, tokens).output_change > 1e-6, site
        with pk.attach(model, pk.Edit(site, lambda a: a.clone())):
            edited = model(tokens)
        torch.testing.assert_close(edited, model(tokens))
    for parts in ("Q", "K", "V", "O", "MLP", "EMBED", "POS", "UNEMBED"):
        change = pk.verify(model, pk.SwapWeights("random", (parts,)), tokens).output_change
        assert change > 1e-3, parts
    module = pk.modulators.LerpModulator(d_model=12, n_layers=1, vocab=17, d_geometry=4).double()
    torch.nn.init.normal_(module.projection)
    assert pk.verify(model, pk.Lerp(module, alpha=0.5, site="0.resid_pre"), tokens).output_change


def test_any_hooked_block_is_wrapped() -> None:
    inner = pk.load("grokking", seed=0, dtype=torch.float64, n_ctx=8, d_vocab=20)
    tokens = torch.tensor([[3, 1, 2, 5]])
    before = inner(tokens)
    with pk.attach(inner, pk.Record("0.resid_pre")) as run:
        inner(tokens)
    model = pk.equilibrium(inner, damping=0.5, n_steps=3, step_size=0.2)
    x = inner.embed.W_E[tokens] + inner.pos_embed.W_pos[:4]
    torch.testing.assert_close(x, run["record"].values)
    block, z = inner.blocks[0], x
    for _ in range(3):
        parts = block.attn(block.ln1(z))[0] + block.mlp(block.ln2(z))
        z = z + 0.2 * (x - 1.5 * z + parts)
    torch.testing.assert_close(model(tokens), inner.unembed(inner.ln_final(z)))
    items = (pk.HeadScale(0, 1, 0.5), pk.AttentionScale(0.5), pk.SwapWeights("zero", ("K",)))
    for item in items:
        assert pk.verify(model, item, tokens).output_change > 1e-6
    with pk.attach(model, *items, pk.VDI(iterations="all")) as run:
        model(tokens)
    assert run["vdi"].values.shape == (3, 1, 2)
    torch.testing.assert_close(inner(tokens), before)
    alone = pk.equilibrium(block, damping=0.5)
    torch.testing.assert_close(
        alone.force(z, x), x - 1.5 * z + block.attn(block.ln1(z))[0] + block.mlp(block.ln2(z))
    )
    _, pushed = jvp(lambda s: alone.force(s, x), (z,), (x,))
    near = (alone.force(z + 1e-6 * x, x) - alone.force(z - 1e-6 * x, x)) / 2e-6
    torch.testing.assert_close(pushed, near, rtol=0, atol=1e-6)


def test_a_twin_has_the_shape_and_other_weights(model) -> None:
    twin = pk.random_twin(model, 1)
    assert twin.cfg.n_steps == 12 and next(twin.parameters()).dtype == torch.float64
    assert not torch.equal(twin.unembed.weight, model.unembed.weight)


def test_a_checkpoint_is_read(model, tmp_path) -> None:
    from safetensors.torch import save_file

    from probekit.hooked.model import weights

    other = tiny(n_steps=12)
    path = tmp_path / "weights.safetensors"
    torch.nn.init.normal_(other.unembed.weight)
    save_file({name: each.detach().clone() for name, each in weights(other).items()}, path)
    read = tiny(n_steps=12, checkpoint=path)
    tokens = torch.tensor([[3, 1]])
    torch.testing.assert_close(read(tokens), other(tokens), rtol=1e-5, atol=1e-5)  # read in float32


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {"act_fn": "relu"},
            "equilibrium models do not support act_fn='relu' (possible: 'gelu', 'gelu_new')",
        ),
        (
            {"parallel_attn_mlp": False},
            "equilibrium models do not support parallel_attn_mlp=False (possible: True)",
        ),
        (
            {"step_size": 0.0},
            "damping=1.0, step_size=0.0, n_steps=150: damping must be above -1, step_size above 0 "
            "and n_steps a whole number",
        ),
    ],
)
def test_configs_that_are_refused(overrides, message) -> None:
    with pytest.raises(pk.CardError) as error:
        tiny(**overrides)
    assert str(error.value) == message


def test_what_is_refused_when_running(model) -> None:
    with pytest.raises(pk.ProbekitError) as error:
        tiny(step_size=50.0, n_steps=300, residual_init=30.0)(torch.tensor([[1, 2]]))
    assert str(error.value) == (
        "the state is not finite after 300 steps of 50.0; lower step_size, or see where it leaves "
        "with probekit.dynamics.relax"
    )
    erf = tiny(act_fn="gelu")
    z = torch.randn(1, 2, 12, dtype=torch.complex128)
    with pytest.raises(pk.ProbekitError, match=r"^act_fn='gelu' is real only, and the state is"):
        erf.force(z, z)
    inner = pk.load("grokking", seed=0)
    with pytest.raises(pk.ProbekitError, match=r"^this equilibrium model wraps a single block"):
        pk.equilibrium(inner.blocks[0])(torch.tensor([[1, 2]]))
    with pytest.raises(pk.ProbekitError, match=r"^Linear carries no config; give a block"):
        pk.equilibrium(torch.nn.Linear(2, 2))
    with pytest.raises(pk.ProbekitError, match=r"^a post-norm block cannot be wrapped"):
        pk.equilibrium(pk.load("interleaved", seed=0, post_norm=True, d_vocab=9, n_ctx=4))
    with pytest.raises(pk.ProbekitError, match=r"^an equilibrium model that wraps another"):
        pk.random_twin(pk.equilibrium(inner), 0)
