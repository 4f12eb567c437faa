"""The read-out path computes what the model computes, and its gradients."""

import pytest
import torch

import probekit as pk
from probekit.training import readout_logits

TOKENS = torch.randint(0, 113, (16, 6), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("direction", ["causal", "bidirectional"])
@pytest.mark.parametrize(("n_layers", "bias"), [(1, False), (2, True), (3, False)])
def test_readout_is_the_models_last_position(n_layers, bias, direction):
    model = pk.load(
        "grokking", seed=1, n_layers=n_layers, attention_bias=bias, attention_dir=direction
    )
    weight = torch.randn(16, 1000, generator=torch.Generator().manual_seed(1))
    gradients = []
    for logits in (model(TOKENS)[:, -1], readout_logits(model, TOKENS)):
        gradients.append(torch.autograd.grad((logits * weight).sum(), list(model.parameters())))
    torch.testing.assert_close(readout_logits(model, TOKENS), model(TOKENS)[:, -1])
    for full, short in zip(*gradients, strict=True):
        torch.testing.assert_close(short, full, rtol=1e-4, atol=1e-4)


def test_other_models_are_refused():
    with pytest.raises(pk.ProbekitError) as error:
        readout_logits(pk.load("grokking", normalization_type="RMS"), TOKENS)
    assert str(error.value) == (
        "readout_logits computes native models with LN and gelu or relu MLPs only, not "
        "TransformerLensNative with RMS and gelu; call the model instead"
    )
