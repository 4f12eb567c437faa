"""Losses of naming what a definition defines, against Hugging Face and recomputations."""

import pytest
import torch
from lemma_toys import toy_bert, toy_examples, toy_t5
from torch.nn import functional as F
from transformers import BertTokenizerFast

import probekit as pk
from probekit.training import (
    DEFINITION,
    LemmaExamples,
    definition_examples,
    definition_logits,
    definition_loss,
    held_out_scores,
    leaking_loss,
    lemma_scores,
    masked_examples,
    masked_lemma_loss,
)

BATCH = toy_examples(5)
LONG = LemmaExamples(
    BATCH.ids,
    BATCH.mask,
    torch.tensor([[7, 9, 1], [8, 1, -100], [9, 4, 1], [3, 1, -100], [5, 6, 1]]),
    torch.tensor([7, 8, 9, 3, 5]),
)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("batch", [BATCH, LONG])
def test_the_repaired_loss_is_hugging_faces(tied: bool, batch: LemmaExamples) -> None:
    model = toy_t5(tie_word_embeddings=tied)
    with torch.no_grad():
        theirs = model.original_model(
            input_ids=batch.ids, attention_mask=batch.mask, labels=batch.labels
        )
        assert torch.equal(definition_loss(model, batch), theirs.loss)
        torch.testing.assert_close(definition_logits(model, batch), theirs.logits[:, 0])


@pytest.mark.parametrize("tied", [True, False])
def test_the_published_loss_reads_its_own_answer_and_skips_the_scale(tied: bool) -> None:
    model = toy_t5(tie_word_embeddings=tied)
    inner = model.original_model
    said = LONG.labels.masked_fill(LONG.labels == -100, 0)
    with torch.no_grad():
        last = inner(
            input_ids=LONG.ids,
            attention_mask=LONG.mask,
            decoder_input_ids=said,
            output_hidden_states=True,
        ).decoder_hidden_states[-1]
        logits = inner.lm_head(last)
        theirs = F.cross_entropy(logits[LONG.labels != -100], LONG.labels[LONG.labels != -100])
        torch.testing.assert_close(leaking_loss(model, LONG), theirs)


def test_what_leaks_is_the_answer() -> None:
    """With the encoder silenced the published loss falls where decoders copy; the repaired not."""
    model = toy_t5(d_model=64, initializer_factor=1.0)
    silent = pk.Edit("encoder.ln_final", torch.zeros_like)
    with torch.no_grad(), pk.attach(model, silent):
        assert leaking_loss(model, BATCH) < 0.5 < 3 < definition_loss(model, BATCH)


def test_the_word_is_read_at_the_mask() -> None:
    model, ids = toy_bert(), BATCH.ids
    at = torch.tensor([0, 2, 1, 0, 2])
    labels = torch.full_like(ids, -100)
    labels[torch.arange(5), at] = BATCH.lemmas
    batch = LemmaExamples(ids, BATCH.mask, labels, BATCH.lemmas)
    with torch.no_grad():
        hidden = model.original_model(ids, attention_mask=BATCH.mask).last_hidden_state
        table = model.original_model.embeddings.word_embeddings.weight
        losses = [
            F.cross_entropy(table @ hidden[row, place], BATCH.lemmas[row])
            for row, place in enumerate(at.tolist())
        ]
        torch.testing.assert_close(masked_lemma_loss(model, batch), torch.stack(losses).mean())


def test_scores_of_the_words_own_token() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0], [2.0, 2.0, 0.0], [0.0, 0.0, 5.0]])
    nll, rank = lemma_scores(logits, torch.tensor([2, 1, 2]))
    assert rank.tolist() == [1, 0, 0]
    expected = -logits.double().softmax(-1).log()[range(3), [2, 1, 2]]
    torch.testing.assert_close(nll, expected)


@pytest.mark.parametrize("batch", [256, 4, 1])
def test_held_out_scores_are_of_all_examples_however_they_are_cut(batch: int) -> None:
    model, examples = toy_t5(), toy_examples(11)  # batches of 4, 4 and 3
    found = held_out_scores(model, examples, DEFINITION, batch)
    with torch.no_grad():
        whole = definition_loss(model, examples)
        nll, rank = lemma_scores(definition_logits(model, examples), examples.lemmas)
    assert found["val_loss"] == pytest.approx(whole.item(), rel=1e-5)
    assert found["lemma_nll"] == pytest.approx(nll.mean().item(), rel=1e-5)
    assert found["lemma_rank"] == rank.double().median().item()


@pytest.fixture
def tokenizer(tmp_path) -> BertTokenizerFast:
    words = "[PAD] [UNK] [CLS] [SEP] [MASK] : a dog cat barks ##ing that animal summarize"
    (tmp_path / "vocab.txt").write_text("\n".join(words.split()))
    return BertTokenizerFast.from_pretrained(tmp_path)


def test_examples_of_definitions(tokenizer) -> None:
    found = definition_examples(tokenizer, ["a animal that barks", "a cat"], ["dog", "barksing"])
    assert found.ids.tolist() == [
        [2, 13, 5, 6, 12, 11, 9, 3],
        [2, 13, 5, 6, 8, 3, 0, 0],
    ]
    assert found.mask.sum(-1).tolist() == [8, 6]
    assert found.labels.tolist() == [[2, 7, 3, -100], [2, 9, 10, 3]]  # BERT's start is its own
    part = found.take(torch.tensor([0]))
    assert part.labels.tolist() == [[2, 7, 3]] and len(part) == 1
    assert found.take(torch.tensor([1])).ids.tolist() == [[2, 13, 5, 6, 8, 3]]


def test_long_texts_are_cut_at_the_published_lengths(tokenizer) -> None:
    found = definition_examples(tokenizer, ["a dog " * 90], ["cat " * 20])
    assert found.ids.shape == (1, 128) and found.labels.shape == (1, 16)
    assert masked_examples(tokenizer, ["a dog " * 90], ["cat"]).ids.shape == (1, 128)


def test_examples_with_a_mask(tokenizer) -> None:
    found = masked_examples(tokenizer, ["a animal that barks", "a cat"], ["dog", "cat"])
    assert found.ids[1].tolist() == [2, 4, 5, 6, 8, 3, 0, 0]
    assert found.lemmas.tolist() == [7, 8]
    assert (found.labels != -100).nonzero().tolist() == [[0, 1], [1, 1]]
    assert found.take(torch.tensor([1])).labels.tolist() == [[-100, 8]]


def test_what_cannot_be_an_example(tokenizer) -> None:
    with pytest.raises(pk.ProbekitError, match=r"^'barksing' is 2 tokens; a mask holds one$"):
        masked_examples(tokenizer, ["a dog"], ["barksing"])
    with pytest.raises(pk.ProbekitError, match=r"^2 glosses for 1 words; give one gloss each$"):
        definition_examples(tokenizer, ["a", "a"], ["dog"])
    tokenizer.mask_token = None
    with pytest.raises(pk.ProbekitError, match=r"^the tokenizer has no mask token"):
        masked_examples(tokenizer, ["a dog"], ["cat"])
