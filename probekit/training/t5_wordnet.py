"""The small T5 of card ``t5-wordnet``: from a WordNet definition to its word, trained from nothing.

A T5 of version 1.0 (ReLU, relative positions, tied embeddings, its head scaled) of 2 + 2 layers and
width 128 reads "summarize: gloss" and says the word, of all 206,978 pairs of a synset and a word
but those of every twentieth synset. Its tokenizer is a byte-pair encoding of the same text, with
some thousands of words in one token each. It is here so that what is said of T5 can be tried
without a network; it knows a few definitions and no language.

    python -m probekit.training.t5_wordnet FOLDER      2 minutes on a GPU, an hour on one core

made the checkpoint in ``models/t5-wordnet``, and prints how good it is: of definitions that it was
not trained on, the word's first token has an NLL of 6.24 nats (by counts 7.59), median rank 99
(431), and is the first guess for 15 % (2 %).
"""

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from ..hooked.load import wrap
from ..hooked.model import HookedModel
from ..lexicon.baselines import PREFIX
from ..lexicon.wordnet import WordNet, load_wordnet
from .lemma_examples import LemmaExamples, definition_examples
from .objectives import definition_logits, lemma_scores

VOCAB = 7_000
HELD_OUT = 20  # every twentieth synset
STEPS, BATCH, LR, WARMUP = 4_600, 256, 5e-4, 300
EMBEDDING = 20  # times the rate: rows have length 11 at the start, and rare ones few steps
SPECIAL = ("<pad>", "</s>", "<unk>")
Pair = tuple[str, str]  # a gloss and a word


def pairs_of(wordnet: WordNet, held_out: bool) -> list[Pair]:
    """The definition and word of every lemma, of the synsets that are trained on or of the rest."""
    return [
        (gloss, lemma.replace("_", " "))
        for index, (gloss, lemmas) in enumerate(zip(wordnet.glosses, wordnet.lemmas, strict=True))
        if (index % HELD_OUT == 0) == held_out
        for lemma in lemmas
    ]


def train_tokenizer(pairs: Sequence[Pair], vocab: int = VOCAB) -> Any:
    """Byte pairs of glosses and words, lower case, word starts marked; ends with ``</s>``."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    parts = [normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()]
    tokenizer.normalizer = normalizers.Sequence(parts)
    splits = [pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(splits)
    tokenizer.decoder = decoders.Metaspace()
    trainer = BpeTrainer(vocab_size=vocab, special_tokens=list(SPECIAL), show_progress=False)
    glosses = list(dict.fromkeys(PREFIX + gloss for gloss, _ in pairs))
    # Words count thrice, so that more of them are one token.
    tokenizer.train_from_iterator(glosses + 3 * [lemma for _, lemma in pairs], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", SPECIAL.index("</s>"))]
    )
    names = dict(zip(("pad_token", "eos_token", "unk_token"), SPECIAL, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def fresh_t5(vocab: int, seed: int = 0) -> T5ForConditionalGeneration:
    """The architecture with random weights."""
    sizes: dict[str, Any] = {"d_model": 128, "d_kv": 32, "d_ff": 512, "num_layers": 2}
    sizes |= {"num_heads": 4, "n_positions": 512, "dropout_rate": 0.0}
    ids: dict[str, Any] = {"decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1}
    config = T5Config(vocab_size=vocab, **sizes, **ids)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return T5ForConditionalGeneration(config)


def train(
    model: T5ForConditionalGeneration, examples: LemmaExamples, steps: int = STEPS, seed: int = 0
) -> None:
    """AdamW with a warm-up and a linear end, on batches of definitions of like length."""
    table = model.shared.weight
    groups = [
        {"params": [table], "factor": EMBEDDING},
        {"params": [p for p in model.parameters() if p is not table], "factor": 1},
    ]
    optimizer = torch.optim.AdamW(groups, LR, betas=(0.9, 0.98), weight_decay=0.01)
    batches = _batches(examples, np.random.default_rng(seed))
    bar = tqdm(range(steps), "training t5-wordnet", mininterval=2)
    for step in bar:
        rate = LR * min((step + 1) / WARMUP, (steps - step) / steps)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        batch = examples.take(next(batches))
        ids, mask, labels = (t.to(table.device) for t in (batch.ids, batch.mask, batch.labels))
        loss = model(ids, attention_mask=mask, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 0:
            bar.set_postfix(loss=f"{loss.item():.2f}")


def _batches(examples: LemmaExamples, rng: np.random.Generator) -> Iterator[Tensor]:
    """Rows without end: shuffled, and within blocks of 32 batches sorted by length."""
    lengths, block = examples.mask.sum(-1).numpy(), 32 * BATCH
    while True:
        order = rng.permutation(len(examples))
        blocks = (order[start : start + block] for start in range(0, len(order), block))
        rows = np.concatenate([each[np.argsort(lengths[each])] for each in blocks])
        for index in rng.permutation(len(rows) // BATCH):
            yield torch.from_numpy(rows[index * BATCH : (index + 1) * BATCH])


@torch.no_grad()
def scores(model: HookedModel, examples: LemmaExamples) -> tuple[float, float, float]:
    """Of the word's first token: mean NLL (nats), median rank, and share at rank 0."""
    found = [
        lemma_scores(definition_logits(model, batch), batch.lemmas)
        for rows in torch.arange(len(examples)).split(256)
        for batch in [examples.take(rows)]
    ]
    nll, rank = (torch.cat(parts).double() for parts in zip(*found, strict=True))
    return float(nll.mean()), float(rank.median()), float((rank == 0).double().mean())


def unigram(train: LemmaExamples, test: LemmaExamples, vocab: int) -> tuple[float, float, float]:
    """The same of counting the trained words' first tokens, one more each."""
    logits = (torch.bincount(train.lemmas, minlength=vocab) + 1).double().log()
    nll, rank = lemma_scores(logits.expand(len(test), vocab), test.lemmas)
    return float(nll.mean()), float(rank.double().median()), float((rank == 0).double().mean())


def main(folder: str) -> None:
    wordnet = load_wordnet()
    pairs = pairs_of(wordnet, held_out=False)
    tokenizer = train_tokenizer(pairs)
    seen, unseen = (
        definition_examples(tokenizer, *zip(*each, strict=True))
        for each in (pairs, pairs_of(wordnet, held_out=True))
    )
    trained = fresh_t5(len(tokenizer))
    nn.Module.to(trained, "cuda" if torch.cuda.is_available() else "cpu")
    train(trained, seen)
    trained.cpu()
    trained.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    model = wrap(trained)
    sample = seen.take(torch.from_numpy(np.random.default_rng(1).permutation(len(seen))[:10_000]))
    for name, found in {
        "unigram, held out": unigram(seen, unseen, len(tokenizer)),
        "trained on": scores(model, sample),
        "held out": scores(model, unseen),
    }.items():
        print("{}: NLL {:.3f} nats, median rank {:.0f}, first {:.3f}".format(name, *found))


if __name__ == "__main__":
    main(*sys.argv[1:])
