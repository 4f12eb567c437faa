"""The real MiniLM against Hugging Face's own, and against a recomputation."""

import copy
import math

import pytest
import torch
from checks import assert_close_to_largest, identity
from families import run
from torch import Tensor, nn
from transformers import BertModel

import probekit as pk


@pytest.fixture(scope="module")
def sentences() -> tuple[Tensor, Tensor]:
    """Token ids of two sentences with padding; BERT's own special tokens at their ends."""
    ids = torch.tensor(
        [
            [101, 1037, 4937, 2938, 2006, 1996, 13523, 102],
            [101, 2182, 2003, 1037, 102, 0, 0, 0],
        ]
    )
    return ids, (ids != 0).long()


@pytest.fixture(scope="module")
def minilm_eager(minilm_folder) -> nn.Module:
    model = BertModel.from_pretrained(minilm_folder, attn_implementation="eager")
    return model.eval()


@pytest.fixture
def expected(minilm_eager, sentences) -> Tensor:
    ids, mask = sentences
    return run(minilm_eager, input_ids=ids, attention_mask=mask).last_hidden_state


def test_minilm_unedited(minilm, sentences, expected):
    ids, mask = sentences
    ours = run(minilm, ids, attention_mask=mask)
    assert_close_to_largest(ours, expected)
    for part in ("pattern", "scores"):
        with pk.attach(minilm, pk.Edit(part, identity)):
            assert torch.equal(run(minilm, ids, attention_mask=mask), expected)


def test_minilm_half_a_pattern(minilm, sentences):
    ids, mask = sentences
    half = pk.SetPattern(lambda pattern: 0.5 * pattern, site="3.pattern:7")
    records = [pk.Record(f"3.{part}", name=part) for part in "qkvz"]
    with pk.attach(minilm, half, *records) as attached:
        edited = run(minilm, ids, attention_mask=mask)
    q, k, v, z = (attached[part].values for part in "qkvz")
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(32)
    pattern = scores.masked_fill(mask[:, None, None] == 0, -torch.inf).softmax(-1)
    pattern[:, 7] *= 0.5
    torch.testing.assert_close(torch.einsum("bhqk,bkhd->bqhd", pattern, v), z, rtol=0, atol=1e-5)
    assert (edited - run(minilm, ids, attention_mask=mask)).abs().max() > 1e-4


def test_minilm_head_scale(minilm, minilm_eager, sentences):
    ids, mask = sentences
    clean = run(minilm, ids, attention_mask=mask)
    with pk.attach(minilm, pk.HeadScale(layer=2, head=5, omega=1)):
        assert torch.equal(run(minilm, ids, attention_mask=mask), clean)
    edited = copy.deepcopy(minilm_eager)
    with torch.no_grad():
        edited.encoder.layer[2].attention.output.dense.weight[:, 5 * 32 : 6 * 32] = 0
    expected = run(edited, input_ids=ids, attention_mask=mask).last_hidden_state
    with pk.attach(minilm, pk.HeadScale(layer=2, head=5, omega=0)) as attached:
        ours = run(minilm, ids, attention_mask=mask)
    assert_close_to_largest(ours, expected)
    assert attached.fired == {"blocks.2.attn.hook_z": 1}
    assert torch.equal(run(minilm, ids, attention_mask=mask), clean)


def test_minilm_vdi(minilm, minilm_eager, sentences):
    """Against the weights that Hugging Face itself returns."""
    ids, mask = sentences
    with pk.attach(minilm, pk.VDI()) as attached:
        run(minilm, ids, attention_mask=mask)
    with torch.no_grad():
        theirs = minilm_eager(ids, attention_mask=mask, output_attentions=True).attentions
    for layer, pattern in enumerate(theirs):
        rows = -torch.xlogy(pattern, pattern).sum(-1).double()  # [batch, head, query]
        per_length = rows / mask.sum(-1).double().log()[:, None, None]
        value = (per_length * mask[:, None]).sum((0, 2)) / mask.sum()
        torch.testing.assert_close(attached["vdi"].values[layer], value, rtol=0, atol=1e-5)
    assert attached["vdi"].null.unique().tolist() == [pytest.approx(1, abs=1e-6)]
