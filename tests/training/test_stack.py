"""A stack computes what each of its models computes, trains as each would, and resumes exactly."""

import pytest
import torch
from torch.nn import functional as F

import probekit as pk
from probekit.hooked.model import load_weights, weights
from probekit.runs import RunDir, optimizer_tensors, restore_optimizer
from probekit.training import Stack, StackedAdamW, clip_stacked_grad_norm, readout_logits

RUNS, BATCH, LENGTH, VOCAB = 3, 16, 6, 40
VARIANTS = [
    (1, False, "causal", "gelu", False),
    (1, True, "bidirectional", "gelu", False),
    (2, True, "causal", "relu", False),
    (3, False, "bidirectional", "gelu", False),
    (1, True, "bidirectional", "relu", True),
    (2, False, "causal", "gelu", True),
]


def models(n_layers=1, bias=False, direction="causal", act_fn="gelu", post_norm=False):
    built = [
        pk.load(
            "grokking",
            seed=seed,
            n_layers=n_layers,
            attention_bias=bias,
            attention_dir=direction,
            act_fn=act_fn,
            post_norm=post_norm,
            unembed_bias=bias,
            d_vocab=VOCAB,
        )
        for seed in range(RUNS)
    ]
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():  # gains and offsets that are not 1 and 0
        for model in built:
            for parameter in model.parameters():
                if parameter.ndim == 1:
                    parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return built


def tokens_of(step, per_run):
    generator = torch.Generator().manual_seed(1000 + step)
    shape = (RUNS, BATCH, LENGTH) if per_run else (BATCH, LENGTH)
    return torch.randint(0, VOCAB, shape, generator=generator)


def of_run(tokens, run):
    return tokens[run] if tokens.ndim == 3 else tokens


def gradients(value, parameters):
    return torch.autograd.grad(value, parameters)


@pytest.mark.parametrize("per_run", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_and_gradients_are_each_models_own(variant, per_run):
    built, tokens = models(*variant), tokens_of(0, per_run)
    stack = Stack(built)
    readers = torch.randn(RUNS, BATCH, VOCAB)
    logits = stack.logits(tokens)
    stacked = gradients((logits * readers).sum(), list(stack.parameters.values()))
    for run, model in enumerate(built):
        expected = model(of_run(tokens, run))[:, -1]
        torch.testing.assert_close(logits[run], expected)
        own = gradients((expected * readers[run]).sum(), list(weights(model).values()))
        for name, gradient, other in zip(stack.parameters, stacked, own, strict=True):
            torch.testing.assert_close(gradient[run], other, rtol=1e-4, atol=1e-4, msg=name)


@pytest.mark.parametrize("batch", [2, BATCH])  # fewer positions than pairs of token and place
@pytest.mark.parametrize("per_run", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_at_every_position_are_each_models_own(variant, per_run, batch):
    built, tokens = models(*variant), tokens_of(0, per_run)[..., :batch, :]
    stack = Stack(built)
    logits = stack.all_logits(tokens)
    torch.testing.assert_close(stack.unembed(stack.final(tokens)), logits[:, :, -1:])
    readers = torch.randn_like(logits)
    stacked = gradients((logits * readers).sum(), list(stack.parameters.values()))
    for run, model in enumerate(built):
        expected = model(of_run(tokens, run))
        torch.testing.assert_close(logits[run], expected)
        own = gradients((expected * readers[run]).sum(), list(weights(model).values()))
        for name, gradient, other in zip(stack.parameters, stacked, own, strict=True):
            torch.testing.assert_close(gradient[run], other, rtol=1e-4, atol=1e-4, msg=name)


@pytest.mark.parametrize("per_run", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_patterns_are_the_recorded_ones(variant, per_run):
    built, tokens = models(*variant), tokens_of(0, per_run)
    stack = Stack(built)
    logits, patterns = stack.logits_and_patterns(tokens)
    torch.testing.assert_close(logits, stack.logits(tokens))
    for run, model in enumerate(built):
        records = [pk.Record(f"{at}.pattern", name=str(at)) for at in range(len(patterns))]
        with torch.no_grad(), pk.attach(model, *records) as attached:
            model(of_run(tokens, run))
        for at, pattern in enumerate(patterns):
            torch.testing.assert_close(pattern[run], attached[str(at)].values)


def keep(site, into):
    """An edit that changes nothing and keeps what it saw, with its gradients."""

    def see(pattern):
        into.append(pattern)
        return pattern

    return pk.Edit(site, see)


@pytest.mark.parametrize("variant", VARIANTS)
def test_patterns_carry_gradients(variant):
    built, tokens = models(*variant), tokens_of(0, per_run=True)
    stack = Stack(built)

    def value(logits, patterns):  # something that reads every entry
        return logits.square().sum() + sum(
            (pattern + 1e-3).log().square().sum() for pattern in patterns
        )

    stacked = gradients(value(*stack.logits_and_patterns(tokens)), list(stack.parameters.values()))
    for run, model in enumerate(built):
        patterns: list[torch.Tensor] = []
        with pk.attach(model, *(keep(f"{layer}.pattern", patterns) for layer in range(variant[0]))):
            logits = model(of_run(tokens, run))[:, -1]
        own = gradients(value(logits, patterns), list(weights(model).values()))
        for name, gradient, other in zip(stack.parameters, stacked, own, strict=True):
            torch.testing.assert_close(gradient[run], other, rtol=1e-3, atol=1e-2, msg=name)


def train_stack(stack, optimizer, steps, per_run=False):
    for step in steps:
        tokens = tokens_of(step, per_run)
        logits, labels = stack.logits(tokens), tokens[..., 0].expand(RUNS, BATCH)
        losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
        optimizer.zero_grad()
        losses.view(RUNS, BATCH).mean(-1).sum().backward()
        clip_stacked_grad_norm(stack.parameters.values(), 1.0)
        optimizer.step()


@pytest.mark.parametrize("per_run", [False, True])
@pytest.mark.parametrize("rates", [[1e-3] * RUNS, [1e-3, 1e-4, 5e-3]])
def test_twenty_steps_are_those_of_separate_runs(rates, per_run):
    built = models(n_layers=2)
    stack = Stack(built)
    lr = torch.tensor(rates) if len(set(rates)) > 1 else rates[0]
    optimizer = StackedAdamW(stack.parameters.values(), lr=lr, weight_decay=1.0)
    train_stack(stack, optimizer, range(20), per_run)
    for run, model in enumerate(built):
        alone = torch.optim.AdamW(model.parameters(), lr=rates[run], weight_decay=1.0)
        for step in range(20):
            tokens = of_run(tokens_of(step, per_run), run)
            alone.zero_grad()
            F.cross_entropy(model(tokens)[:, -1], tokens[:, 0]).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            alone.step()
        # Adam divides by the gradient's own size: where that is near rounding so is its sign,
        # and a step of lr is the error; nothing came near that here.
        for name, tensor in weights(model).items():
            torch.testing.assert_close(
                stack.parameters[name].detach()[run],
                tensor.detach(),
                rtol=1e-3,
                atol=1e-4,
                msg=name,
            )


def test_resumed_stack_goes_on_exactly(tmp_path):
    def fresh():
        stack = Stack(models())
        return stack, StackedAdamW(stack.parameters.values(), lr=torch.tensor([1e-3, 1e-4, 5e-3]))

    stack, optimizer = fresh()
    train_stack(stack, optimizer, range(5))
    run = RunDir(tmp_path)
    run.save_checkpoint(5, {**stack.parameters, **optimizer_tensors(optimizer)}, {})
    train_stack(stack, optimizer, range(5, 10))
    resumed, again = fresh()
    loaded = run.load_checkpoint()
    assert loaded is not None
    with torch.no_grad():
        for name, parameter in resumed.parameters.items():
            parameter.copy_(loaded[1][name])
    restore_optimizer(again, loaded[1])
    train_stack(resumed, again, range(5, 10))
    for name, parameter in stack.parameters.items():
        assert torch.equal(parameter, resumed.parameters[name]), name


def test_copy_to_writes_one_run_and_leaves_the_stack():
    built, tokens = models(), tokens_of(0, per_run=False)
    stack = Stack(built)
    target = pk.load("grokking", seed=9, d_vocab=VOCAB)
    stack.copy_to(1, target)
    assert torch.equal(target(tokens), built[1](tokens))
    load_weights(target, weights(built[2]))
    assert torch.equal(stack.parameters["head.weight"][1], weights(built[1])["head.weight"])


def test_the_same_model_may_come_twice():
    model = models()[0]
    stack = Stack([model, model])
    assert len(stack) == 2
    logits = stack.logits(tokens_of(0, per_run=False))
    assert torch.equal(logits[0], logits[1])
    assert not torch.equal(logits[0], logits.flip(1)[0])


def test_one_run_is_the_readout():
    model, tokens = models()[0], tokens_of(0, per_run=False)
    torch.testing.assert_close(Stack([model]).logits(tokens)[0], readout_logits(model, tokens))


def test_unknown_tokens_are_refused_rather_than_read_from_the_next_run():
    with pytest.raises((IndexError, RuntimeError)):
        Stack(models()).logits(torch.full((1, LENGTH), VOCAB))


def test_models_of_several_shapes_are_refused():
    wide = pk.load("grokking", seed=0, d_vocab=30, n_heads=4)
    with pytest.raises(pk.ProbekitError) as error:
        Stack([pk.load("grokking", seed=0, d_vocab=40), wide])
    assert str(error.value).startswith("Stack needs models of one shape; model 1 has ")


@pytest.mark.parametrize(
    ("overrides", "wrong"),
    [  # weights of the same names and shapes, and another computation
        ({"n_heads": 4, "d_head": 16}, "n_heads 4, not 2"),
        ({"attention_dir": "bidirectional"}, "attention_dir 'bidirectional', not 'causal'"),
        ({"act_fn": "relu"}, "act_fn 'relu', not 'gelu'"),
        ({"eps": 1e-3}, "eps 0.001, not 1e-05"),
        ({"post_norm": True}, "post_norm True, not False"),
    ],
)
def test_models_that_differ_beyond_their_weights_are_refused(overrides, wrong):
    with pytest.raises(pk.ProbekitError) as error:
        Stack([pk.load("grokking", seed=0), pk.load("grokking", seed=0, **overrides)])
    assert str(error.value) == (f"Stack needs models of one shape; model 1 has {wrong} as model 0")


def test_other_models_are_refused():
    with pytest.raises(pk.ProbekitError) as error:
        Stack([pk.load("grokking", normalization_type="RMS")])
    assert str(error.value) == (
        "Stack computes native models with LN and gelu or relu MLPs only, not "
        "TransformerLensNative with RMS and gelu; call the model instead"
    )
    with pytest.raises(pk.ProbekitError) as error:
        Stack([])
    assert str(error.value) == "Stack needs at least one model; given none"
