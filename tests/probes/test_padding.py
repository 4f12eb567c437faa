"""Padding does not move VDI, and forwards add up."""

from typing import Any

import families
import pytest
import torch

import probekit as pk


def run_of(family: families.Family, example: int | None, *items: Any) -> Any:
    """One example without its padding, or the padded batch."""
    args, kwargs = list(family.args), dict(family.kwargs)
    if example is not None:
        length = int(kwargs["attention_mask"][example].sum())
        args[0] = args[0][example : example + 1, :length]
        kwargs["attention_mask"] = kwargs["attention_mask"][example : example + 1, :length]
        if "decoder_input" in kwargs:
            kwargs["decoder_input"] = kwargs["decoder_input"][example : example + 1]
    with torch.no_grad():
        family.model(*args, **kwargs)


@pytest.mark.parametrize("queries", [None, (2,)])
@pytest.mark.parametrize("family", ["bert", "t5"], indirect=True)
def test_a_padded_batch_reads_as_its_examples_one_by_one(family, normaliser, order, queries):
    """Padding does not move the number, and several forwards add up to one."""
    vdi = pk.VDI(normaliser=normaliser, order=order, queries=queries)
    nats = pk.AttentionEntropy(queries=queries)
    with pk.attach(family.model, vdi, nats) as padded:
        run_of(family, None)
    with pk.attach(family.model, vdi, nats) as alone:
        for example in range(3):
            run_of(family, example)
    for name in ("vdi", "attention_entropy"):
        for one, other in (
            (alone[name], padded[name]),
            (alone[name].rows, padded[name].rows),
        ):
            close = {"rtol": 0, "atol": 1e-5, "equal_nan": True}
            torch.testing.assert_close(one.values, other.values, **close)
            torch.testing.assert_close(one.null, other.null, **close)
            assert not one.values.isnan().all()


@pytest.mark.parametrize("name", ["native", "bert"])
def test_forwards_of_different_lengths_add_up(built, name, order):
    """Lengths 3, 7 and 5 in three forwards, against the one padded batch of the three."""
    family = built(name)
    ids = families.token_ids()
    lengths = (3, 7, 5)
    mask = (torch.arange(7) < torch.tensor(lengths)[:, None]).long()
    with torch.no_grad(), pk.attach(family.model, pk.VDI(order=order)) as one:
        family.model(ids, attention_mask=mask)
    with torch.no_grad(), pk.attach(family.model, pk.VDI(order=order)) as several:
        for example, length in enumerate(lengths):
            family.model(ids[example : example + 1, :length])
    close = {"rtol": 0, "atol": 1e-5}
    torch.testing.assert_close(several["vdi"].values, one["vdi"].values, **close)
    torch.testing.assert_close(several["vdi"].null, one["vdi"].null, **close)
    torch.testing.assert_close(several["vdi"].rows.values, one["vdi"].rows.values, **close)
