"""What the tests of storage store, and how they compare what comes back."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import probekit as pk
from probekit import registry
from probekit.modulators import LerpModulator


def double(x: Tensor) -> Tensor:
    return 2 * x


def lerp() -> LerpModulator:
    return LerpModulator(d_model=8, n_layers=2, vocab=5, d_geometry=3, seed=1)


#: How ``double`` is called where it is stored.
NAME = f"{__name__}:double"
DOUBLE = {NAME: double}
WEIGHTS = {"0.Q.weight": torch.arange(6.0).view(2, 3).mT, "0.Q.bias": torch.tensor(1.5).half()}
MANY = torch.arange(2000)  # more than is printed


@dataclass(frozen=True)
class Holder(pk.Intervention):
    """Holds anything."""

    value: Any = 1
    more: Any = (1.0, None)
    many: Any = MANY

    def sites(self) -> tuple[pk.Site, ...]:
        return ()

    def edit(self, x: Tensor, at: pk.Firing) -> Tensor:
        return x


def register(cls: type, patch: pytest.MonkeyPatch) -> None:
    """Add an intervention to the registry until the patch is undone."""
    known = registry.GROUPS["probekit.interventions"]
    patch.setitem(registry.GROUPS, "probekit.interventions", (*known, cls))


@pytest.fixture(autouse=True, scope="module")
def holder_is_registered() -> Iterator[None]:
    """For every test of the files that import it."""
    with pytest.MonkeyPatch.context() as patch:
        register(Holder, patch)
        yield


def assert_same(got: Any, wanted: Any) -> None:
    """Equal values of equal types, tensors and the weights of modules bit for bit."""
    if isinstance(wanted, list):
        wanted = tuple(wanted)  # a list cannot be told from a tuple once stored
    if isinstance(wanted, Tensor):
        assert got.dtype == wanted.dtype and got.shape == wanted.shape
        assert got.numpy().tobytes() == wanted.numpy().tobytes()
    elif isinstance(wanted, nn.Module):
        assert type(got) is type(wanted) and got.training == wanted.training
        assert_same(got.state_dict(), dict(wanted.state_dict()))
    elif isinstance(wanted, Mapping):
        assert list(got) == list(wanted) or set(got) == set(wanted)
        for key, value in wanted.items():
            assert_same(got[key], value)
    elif isinstance(wanted, tuple):
        assert len(got) == len(wanted)
        for one, other in zip(got, wanted, strict=True):
            assert_same(one, other)
    else:
        assert type(got) is type(wanted) and repr(got) == repr(wanted)
