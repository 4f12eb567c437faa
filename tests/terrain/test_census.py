"""Parameters counted by another route, tied tables, unused rows and ranges of ids."""

import families
import pytest
import torch
from torch import nn

from probekit.errors import CardError
from probekit.pretrained import pretrained, tokenizer_of
from probekit.terrain.census import census_of, id_ranges_of, used_rows_of
from probekit.terrain.tokens import embedding_of


@pytest.mark.parametrize("name", ["bert", "t5", "gpt2"])
def test_every_parameter_is_counted_once(name) -> None:
    family = families.ALL[name]()
    found = census_of(family.model)
    assert family.eager is not None
    expected = sum(each.numel() for each in family.eager.parameters())
    assert found["total"] == sum(found["parameters"].values()) == expected


def test_tied_tables_are_told_from_others() -> None:
    model = families.t5().model
    assert census_of(model)["tied"] == {"encoder": True, "decoder": True, "head": True}
    assert census_of(model)["head"] == {"cosine": pytest.approx(1), "distance": 0.0}
    inner = model.original_model
    table = inner.shared.weight.detach()
    inner.lm_head.weight = nn.Parameter(-2 * table)
    untied = census_of(model)
    assert untied["tied"] == {"encoder": True, "decoder": True, "head": False}
    assert untied["head"] == {"cosine": pytest.approx(-1), "distance": pytest.approx(3)}


class Numbered:
    """A vocabulary whose ids are codes less ``shift``, with two unused rows at the end."""

    def __init__(self, shift: int) -> None:
        self.tokens = [chr(code) for code in range(shift, 127)] + ["[unused1]", "[unused22]"]

    def __len__(self) -> int:
        return len(self.tokens)

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        return {"input_ids": [self.tokens.index(character) for character in text]}

    def convert_ids_to_tokens(self, ids: range) -> list[str]:
        return [self.tokens[i] for i in ids]


def test_ids_are_codes_in_some_vocabularies_only() -> None:
    """Digits lie together; the published range holds them where ids are codes, else others."""
    for shift, share in ((0, 1.0), (33, 0.0)):
        tokenizer = Numbered(shift)
        table = torch.randn(len(tokenizer) + 3, 16, generator=torch.Generator().manual_seed(0))
        table[48 - shift : 58 - shift] += 5
        found = id_ranges_of(table, tokenizer)
        assert found["digits"]["share"] == share
        assert found["digits, by text"]["z"] > 10
        assert (found["digits"]["z"] > 10) == (share == 1)
        assert found["last 100"]["ids"] == min(100, len(tokenizer))


def test_unused_rows_do_not_count() -> None:
    """Used rows lie in a plane; rows beyond the tokenizer and unused ones fill all dimensions."""
    tokenizer = Numbered(0)
    table = torch.randn(140, 8, generator=torch.Generator().manual_seed(1))
    table[:127, 2:] = 0
    found = used_rows_of(table, tokenizer)
    assert found["unused"] == 13
    assert 1.9 / 8 < found["participation / dim"] < found["debiased"] <= 2.1 / 8


def test_the_real_vocabulary(minilm_folder) -> None:
    model = pretrained(f"minilm={minilm_folder}")
    tokenizer, table = tokenizer_of(model), embedding_of(model)
    assert used_rows_of(table, tokenizer)["unused"] == 994
    assert id_ranges_of(table, tokenizer)["digits"]["share"] == 0  # [unused47] and on
    assert census_of(model)["head"] is None


@pytest.mark.parametrize("name", ["clip", "dinov2"])
def test_models_without_one_embedding_are_refused(name) -> None:
    with pytest.raises(CardError, match=r"Model has no one embedding of tokens; take a language"):
        embedding_of(families.ALL[name]().model)
