"""Unedited, attention is Hugging Face's: eager's bits where it is tapped, SDPA where it is not."""

from typing import Any

import families
import pytest
import torch
from checks import assert_close_to_largest, identity
from torch import nn

import probekit as pk
from probekit import seam


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
