"""The hub: asked where it answers, given up at once where it does not."""

import socket
import time
from pathlib import Path
from typing import Any

import pytest
import transformers

import probekit as pk
from probekit.hooked import load as loading


@pytest.fixture
def empty_cache(tmp_path, monkeypatch) -> Path:
    """A hub cache with nothing in it."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def not_here(cache: Path, why: str = "the hub cannot be reached") -> str:
    return (
        "the weights of 'sentence-transformers/all-MiniLM-L6-v2' (card 'minilm') are not in the "
        f"hub cache at {cache} and {why}; give a folder with checkpoint=, a model in memory "
        "with hf_model=, or fill the cache where there is a network"
    )


def hangs(*args: Any, **kwargs: Any) -> Any:
    time.sleep(5)
    raise OSError("timed out")


def refuses(*args: Any, **kwargs: Any) -> Any:
    raise OSError("network is unreachable")


@pytest.mark.parametrize("how", ["offline", "local files only", "unreachable", "hangs"])
def test_without_a_network_the_error_comes_at_once(monkeypatch, empty_cache, how):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", how == "offline")
    monkeypatch.delenv("HTTPS_PROXY", raising=False)
    monkeypatch.delenv("https_proxy", raising=False)
    monkeypatch.setattr(socket, "create_connection", hangs if how == "hangs" else refuses)
    began = time.perf_counter()
    with pytest.raises(pk.CardError) as error:
        pk.load("minilm", local_files_only=how == "local files only")
    assert time.perf_counter() - began < 1
    why = "local_files_only is set" if how == "local files only" else "the hub cannot be reached"
    assert str(error.value) == not_here(empty_cache, why)


def test_a_cache_at_home_is_named_without_the_home(monkeypatch, empty_cache):
    monkeypatch.setattr(Path, "home", lambda: empty_cache.parent)
    with pytest.raises(pk.CardError, match=r"are not in the hub cache at ~.hub and local_files"):
        pk.load("minilm", local_files_only=True)


def test_a_dead_proxy_is_found_out_at_once(monkeypatch, empty_cache):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    began = time.perf_counter()
    with pytest.raises(pk.CardError) as error:
        pk.load("minilm")
    assert time.perf_counter() - began < 1
    assert str(error.value) == not_here(empty_cache)


class Config(transformers.BertConfig):
    """A config that is there."""

    @classmethod
    def from_pretrained(cls, *_: Any, **__: Any) -> Any:
        return cls()


def test_an_interrupted_download_is_taken_up_again(monkeypatch, empty_cache):
    asked: list[bool] = []

    class Pretrained(transformers.BertModel):
        config_class = Config

        @classmethod
        def from_pretrained(cls, name: Any, **kwargs: Any) -> Any:
            asked.append(kwargs["local_files_only"])
            raise OSError("no weights")

    monkeypatch.setattr(loading, "_cached", lambda card: True)
    monkeypatch.setattr(loading, "hub_answers", lambda: True)
    monkeypatch.setattr(loading.transformers, "BertModel", Pretrained)
    with pytest.raises(pk.CardError):
        pk.load("minilm")
    assert asked == [True, False]


def test_the_hub_is_asked_where_it_answers(monkeypatch, empty_cache):
    asked: list[Any] = []

    class Connection:
        def close(self) -> None:
            pass

    class Pretrained(transformers.BertModel):
        config_class = Config

        @classmethod
        def from_pretrained(cls, name: Any, **kwargs: Any) -> Any:
            asked.append((name, kwargs["local_files_only"]))
            raise OSError("gone")

    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket, "create_connection", lambda *args: Connection())
    monkeypatch.setattr(loading.transformers, "BertModel", Pretrained)
    with pytest.raises(pk.CardError) as error:
        pk.load("minilm")
    assert asked == [("sentence-transformers/all-MiniLM-L6-v2", False)]
    tried = "checkpoint sentence-transformers/all-MiniLM-L6-v2 cannot be loaded (gone)"
    assert str(error.value) == f"{not_here(empty_cache, 'the hub did not give them')}: {tried}"


def test_an_enormous_model_is_refused_from_the_hub_too(monkeypatch, empty_cache):
    class Enormous(Config):
        @classmethod
        def from_pretrained(cls, *_: Any, **__: Any) -> Any:
            return cls(num_hidden_layers=10**9)

    class Pretrained(transformers.BertModel):
        config_class = Enormous

        @classmethod
        def from_pretrained(cls, *_: Any, **__: Any) -> Any:
            raise AssertionError("it was asked for")

    monkeypatch.setattr(loading, "hub_answers", lambda: True)
    monkeypatch.setattr(loading.transformers, "BertModel", Pretrained)
    with pytest.raises(pk.CardError, match=r"takes [0-9,]+ GiB of memory"):
        pk.load("minilm")
