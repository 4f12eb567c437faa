"""Next tokens of a text: what simple guessers reach, and where a network is right.

A network without a causal mask reads the answer one position to the right, except at the last
position. So its accuracy over all positions is ``(L - 1 + a) / L`` with a its accuracy at the last
one, the only one where anything is predicted.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..language import LanguageTask
from ..stack import Stack

Tokens = Int[Tensor, "batch pos"]
_WINDOWS = 50  # a forward, or the logits take too much memory


def guesses(task: LanguageTask, tokens: Tokens) -> dict[str, Tokens]:
    """What three guessers that learn nothing but counts on the training text say comes next.

    ``most frequent token`` whatever is read, ``most frequent follower`` of the token that is read,
    and ``token to the right``, which stands among the inputs; at the last position none does, and
    the follower is guessed.
    """
    text, vocab = task.text(), task.config["d_vocab"]
    common = int(text.bincount().argmax())
    pairs = (text[:-1] * vocab + text[1:]).bincount(minlength=vocab**2).view(vocab, vocab)
    followers = torch.where(pairs.sum(1) > 0, pairs.argmax(1), common)
    following = followers[tokens]
    return {
        "most frequent token": torch.full_like(tokens, common),
        "most frequent follower": following,
        "token to the right": torch.cat([tokens[:, 1:], following[:, -1:]], dim=1),
    }


def random_text(task: LanguageTask, windows: int, seed: int) -> tuple[Tokens, Tokens]:
    """Windows of tokens drawn independently with the frequencies of the training text, and labels.

    Nothing here can be predicted but the most frequent token.
    """
    text, drawn = task.text(), np.random.default_rng([seed, windows])
    drawn_at = drawn.integers(0, len(text), (windows, task.length + 1))
    tokens = text[torch.from_numpy(drawn_at)]
    return tokens[:, :-1], tokens[:, 1:]


@torch.no_grad()
def predictions(stack: Stack, tokens: Tokens) -> Int[Tensor, "run batch pos"]:
    """Each run's largest logit at every position."""
    parts = [stack.all_logits(part).argmax(-1) for part in tokens.split(_WINDOWS)]
    return torch.cat(parts, dim=1)


def by_position(said: Int[Tensor, "*run batch pos"], labels: Tokens) -> Float[Tensor, "*run pos"]:
    """The share of right predictions at each position."""
    return (said == labels).double().mean(-2)


def prediction_rows(
    words: Sequence[str], tokens: Int[Tensor, " pos"], said: Mapping[str, Int[Tensor, " pos"]]
) -> list[dict[str, str]]:
    """One window as a table: a row a position, what is read there and what each predictor says.

    Args:
        words: the vocabulary; byte-pair marks of space and line break become visible signs.
        said: by name, the true next token among them.
    """

    def shown(token: Tensor) -> str:
        return words[int(token)].replace("Ġ", "␣").replace("Ċ", "⏎")

    return [
        {"position": str(at), "read": shown(token)}
        | {name: shown(each[at]) for name, each in said.items()}
        for at, token in enumerate(tokens)
    ]
