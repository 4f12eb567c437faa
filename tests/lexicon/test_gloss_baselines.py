"""What reads glosses: bags, shared tokens, and encoders with and without training."""

import pytest
import torch
from transformers import BertConfig, BertModel, T5Config, T5ForConditionalGeneration

from probekit.errors import ProbekitError
from probekit.lexicon import bag_of_tokens, encode_texts, jaccard, random_encoder


class Tokenizer:
    """Letters as tokens, 0 as padding and 1 as the end, called as Hugging Face's are."""

    def __call__(self, texts, *, padding, truncation, max_length, return_tensors):
        assert padding and truncation and return_tensors == "pt"
        ids = [[*(ord(letter) - 95 for letter in text[: max_length - 1]), 1] for text in texts]
        width = max(map(len, ids))
        return Batch(
            input_ids=torch.tensor([each + [0] * (width - len(each)) for each in ids]),
            attention_mask=torch.tensor([[1] * len(e) + [0] * (width - len(e)) for e in ids]),
        )


class Batch(dict):
    def to(self, device):
        return self


def bert() -> BertModel:
    config = BertConfig(
        vocab_size=30,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
    )
    return BertModel(config)


def t5() -> T5ForConditionalGeneration:
    return T5ForConditionalGeneration(
        T5Config(vocab_size=30, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    )


TEXTS = ["abc", "a", "zyxwv", "bb"]


@pytest.mark.parametrize("build", [bert, t5])
def test_encoding_is_the_mean_over_each_text_alone(build):
    model = build().train()
    found = encode_texts(model, Tokenizer(), TEXTS, batch=3, max_length=5)
    assert model.training
    model.eval()
    encoder = model.encoder if build is t5 else model
    for text, row in zip(TEXTS, found, strict=True):
        ids = torch.tensor([[*(ord(letter) - 95 for letter in text[:4]), 1]])
        with torch.no_grad():
            expected = encoder(input_ids=ids).last_hidden_state[0].mean(0)
        # Padding changes the order of float32 sums.
        torch.testing.assert_close(row, expected, rtol=1e-4, atol=1e-5)


def test_a_random_encoder_has_other_weights_of_the_same_law():
    model = bert()
    state = torch.get_rng_state()
    fresh, again, other = (random_encoder(model, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    weights = [m.encoder.layer[0].attention.self.query.weight for m in (model, fresh, again, other)]
    assert torch.equal(weights[1], weights[2])
    assert not torch.equal(weights[1], weights[0]) and not torch.equal(weights[1], weights[3])
    assert float(weights[1].detach().std()) == pytest.approx(0.02, rel=0.2)
    assert not fresh.training and fresh.config == model.config


def test_bags():
    table = torch.arange(12).reshape(6, 2).float()
    found = bag_of_tokens(table, [[0, 5], [2], [3, 3, 0]])
    assert found.tolist() == [[5, 6], [4, 5], [4, 5]]
    assert found.dtype == torch.float64
    with pytest.raises(ProbekitError) as error:
        bag_of_tokens(table, [[1], []])
    assert str(error.value) == (
        "bag_of_tokens needs texts of one token or more; leave empty ones out"
    )


def test_jaccard():
    texts = [[1, 2, 2, 3], [3, 2], [7], [], [9, 1]]
    found = jaccard(texts)
    for i, one in enumerate(map(set, texts)):
        for j, other in enumerate(map(set, texts)):
            expected = len(one & other) / len(one | other) if one | other else 0
            assert float(found[i, j]) == expected


def test_what_encoding_refuses():
    with pytest.raises(ProbekitError) as error:
        encode_texts(bert(), Tokenizer(), [])
    assert str(error.value) == "encode_texts needs a text at least"
    with pytest.raises(ProbekitError, match=r"^batch must be a whole number from 1, not 0$"):
        encode_texts(bert(), Tokenizer(), TEXTS, batch=0)
