"""Loading: native models against plain PyTorch, folders and errors, weights, twins, MiniLM."""

import copy
import math
import socket
import time
from pathlib import Path
from typing import Any

import families
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertModel,
    PretrainedConfig,
    T5Config,
    T5ForConditionalGeneration,
)

import probekit as pk
from probekit.hooked import load as loading
from probekit.hooked.model import load_weights, weights

SMALL: dict[str, Any] = {"n_layers": 2, "n_ctx": 8, "d_vocab": 50}
IDS = torch.randint(0, 50, (3, 7), generator=torch.Generator().manual_seed(1))


def run(model: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
    with torch.no_grad():
        return model(*args, **kwargs)


# Native models


def plain_forward(w: dict[str, Tensor], ids: Tensor, heads: int, causal: bool) -> Tensor:
    """A pre-LN transformer with exact GELU, written from its definition."""

    def norm(x: Tensor, name: str) -> Tensor:
        mean, variance = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, unbiased=False)
        return (x - mean) / (variance + 1e-5).sqrt() * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", torch.zeros(()))

    length = ids.shape[1]
    x = w["tok_embed.weight"][ids] + w["pos.weight"][:length]
    layer = 0
    while f"layers.{layer}.ln1.weight" in w:
        at = f"layers.{layer}"
        normed = norm(x, f"{at}.ln1")
        q, k, v = (linear(normed, f"{at}.attn.{part}").unflatten(-1, (heads, -1)) for part in "qkv")
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(q.shape[-1])
        if causal:
            hidden = torch.arange(length)[:, None] < torch.arange(length)
            scores = scores.masked_fill(hidden, -torch.inf)
        weights = scores.exp() / scores.exp().sum(-1, keepdim=True)
        z = torch.einsum("bhqk,bkhd->bqhd", weights, v).flatten(-2)
        x = x + linear(z, f"{at}.attn.o")
        inner = linear(norm(x, f"{at}.ln2"), f"{at}.mlp.fc_in")
        gelu = inner * (1 + torch.erf(inner / math.sqrt(2))) / 2
        x = x + linear(gelu, f"{at}.mlp.fc_out")
        layer += 1
    return linear(norm(x, "ln_out"), "head")


@pytest.mark.parametrize("direction", ["causal", "bidirectional"])
@pytest.mark.parametrize("bias", [False, True])
def test_a_native_model_is_the_plain_transformer(direction, bias):
    model = pk.load(
        "grokking",
        seed=0,
        dtype=torch.float64,
        attention_dir=direction,
        attention_bias=bias,
        **SMALL,
    )
    own = {name: tensor.detach() for name, tensor in weights(model).items()}
    expected = plain_forward(own, IDS, heads=2, causal=direction == "causal")
    torch.testing.assert_close(run(model, IDS), expected, rtol=0, atol=1e-6)
    with pk.attach(model, pk.VDI()):  # not SDPA
        torch.testing.assert_close(run(model, IDS), expected, rtol=0, atol=1e-6)


def test_the_grokking_card_has_no_attention_biases():
    names = set(weights(pk.load("grokking", seed=0)))
    assert not {name for name in names if ".attn." in name and name.endswith("bias")}
    with_bias = set(weights(pk.load("grokking", seed=0, attention_bias=True)))
    assert with_bias - names == {f"layers.0.attn.{part}.bias" for part in "qkvo"}


@pytest.mark.parametrize("direction", ["causal", "bidirectional"])
@pytest.mark.parametrize("tapped", [False, True])
def test_padding_does_not_reach_the_real_positions(direction, tapped):
    model = pk.load("grokking", seed=0, attention_dir=direction, **SMALL)
    mask = torch.ones(3, 7, dtype=torch.long)
    mask[1, 4:], mask[2, 6:] = 0, 0
    items = [pk.VDI()] if tapped else []
    with pk.attach(model, *items):
        padded = run(model, IDS, attention_mask=mask)
        for example, length in enumerate(mask.sum(-1).tolist()):
            alone = run(model, IDS[example : example + 1, :length])
            torch.testing.assert_close(padded[example, :length], alone[0], rtol=0, atol=1e-5)


def test_padding_on_the_left_leaves_no_nan():
    model = pk.load("grokking", seed=0, **SMALL)
    mask = torch.ones(3, 7, dtype=torch.long)
    mask[0, :3] = 0
    assert run(model, IDS, attention_mask=mask).isfinite().all()
    with pk.attach(model, pk.VDI()) as attached:
        assert run(model, IDS, attention_mask=mask).isfinite().all()
    # Queries 0 to 2 of the first example are padding: T is 4 there.
    total = math.lgamma(5) / math.log(4) + 2 * math.lgamma(8) / math.log(7)
    assert float(attached["vdi"].null[0, 0]) == pytest.approx(total / 18, abs=1e-6)


def test_a_mask_of_another_shape_is_refused():
    model = pk.load("grokking", seed=0, **SMALL)
    with pytest.raises(pk.CardError) as error:
        run(model, IDS, attention_mask=torch.ones(3, 1, 7, 7))
    assert str(error.value) == (
        "a native model takes attention_mask [batch, pos], not (3, 1, 7, 7)"
    )


def same(one: nn.Module, two: nn.Module) -> bool:
    first, second = weights(one), weights(two)  # type: ignore[arg-type]
    assert first.keys() == second.keys()
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("init_weights", [False, True])
def test_seeds_reproduce_and_leave_the_global_generator_alone(init_weights):
    changes = {**SMALL, "init_weights": init_weights}
    before = torch.get_rng_state()
    one, again = (pk.load("grokking", seed=3, **changes) for _ in range(2))
    other = pk.load("grokking", seed=4, **changes)
    fresh, fresher = (pk.load("grokking", **changes) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert same(one, again)
    assert not same(one, other) and not same(fresh, fresher) and not same(fresh, one)


def test_overrides_replace_fields_of_the_config():
    model = pk.load("grokking", seed=0, n_layers=3, d_mlp=32)
    assert (model.cfg.n_layers, model.cfg.d_mlp, model.cfg.n_heads) == (3, 32, 2)
    assert weights(model)["layers.2.mlp.fc_in.weight"].shape == (32, 64)


def test_dtype_and_device():
    model = pk.load("grokking", seed=0, device="cpu", dtype=torch.float64, **SMALL)
    assert {tensor.dtype for tensor in weights(model).values()} == {torch.float64}
    assert run(model, IDS).dtype == torch.float64


def test_a_card_by_its_path(tmp_path):
    text = 'title = "t"\nsource = "native"\n[config]\nn_layers = 1\nn_heads = 1\nd_model = 4\n'
    text += 'd_head = 4\nn_ctx = 7\nd_vocab = 50\nact_fn = "relu"\nnormalization_type = "LN"\n'
    path = tmp_path / "own.toml"
    path.write_text(text)
    model = pk.load(path, seed=0)
    assert model.cfg.model_name == "own"
    assert run(model, IDS).shape == (3, 7, 50)


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        (
            "minilm",
            {"n_layers": 2, "d_mlp": 4},
            "card 'minilm' has pretrained weights, so n_layers, d_mlp cannot be overridden; build "
            "a Hugging Face model of that size and pass hf_model=",
        ),
        (
            "grokking",
            {"hf_model": nn.Linear(1, 1)},
            "card 'grokking' is a native model; hf_model= needs a Hugging Face card",
        ),
        (
            "grokking",
            {"d_model": -1},
            "card 'grokking': d_model must be a positive whole number, not -1",
        ),
        (
            "grokking",
            {"parallel_attn_mlp": True},
            "native models do not support parallel_attn_mlp=True",
        ),
        (
            "grokking",
            {"attn_scores_soft_cap": 30.0},
            "native models do not support attn_scores_soft_cap=30.0",
        ),
        ("grokking", {"attn_scale": 2.0}, "native models do not support attn_scale=2.0"),
        (
            "grokking",
            {"positional_embedding_type": "rotary"},
            "native models do not support positional_embedding_type='rotary'",
        ),
        (
            "grokking",
            {"n_key_value_heads": 1},
            "native models do not support grouped heads (n_key_value_heads)",
        ),
        (
            "grokking",
            {"checkpoint": "nowhere.safetensors"},
            "checkpoint nowhere.safetensors cannot be read: ",
        ),
        ("minilm", {"checkpoint": "nowhere"}, "checkpoint nowhere: no folder with a config.json"),
    ],
)
def test_what_cannot_be_loaded(name, overrides, message):
    with pytest.raises(pk.CardError) as error:
        pk.load(name, **overrides)
    text = str(error.value)
    assert text.startswith(message) if message.endswith(": ") else text == message


def test_an_unknown_override_is_answered_with_the_closest():
    with pytest.raises(pk.CardError, match=r"^card 'grokking': unknown config key 'n_layer'; .*"):
        pk.load("grokking", n_layer=2)
    with pytest.raises(pk.CardError, match=r"; closest: 'n_layers'$"):
        pk.load("grokking", n_layer=2)


# Hugging Face models in memory


def test_a_model_that_is_wrapped_already_is_refused():
    family = families.bert()
    with pytest.raises(pk.CardError) as error:
        pk.load("minilm", hf_model=family.model.original_model)
    assert str(error.value) == (
        "hf_model is wrapped already; use that bridge, or load the model afresh"
    )


def test_a_class_without_adapter_is_refused():
    class BertModle(nn.Module):
        config = PretrainedConfig()

    with pytest.raises(pk.CardError) as error:
        pk.load("minilm", hf_model=BertModle())
    assert str(error.value) == (
        "no TransformerLens adapter for BertModle; closest: 'BertModel', 'HubertModel', 'DeiTModel'"
    )


def test_inputs_go_by_name_or_by_position(built):
    family = built("bert")
    by_name = run(family.model, input_ids=family.args[0], **family.kwargs)
    assert torch.equal(by_name, family.run())


def test_a_wrapped_model_is_in_eval_mode():
    model = BertModel(tiny_bert())
    model.train()
    wrapped = pk.wrap(model)
    assert not any(module.training for module in (*wrapped.modules(), *model.modules()))


# Folders


def tiny_bert(**changes: Any) -> BertConfig:
    fields: dict[str, Any] = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "vocab_size": 50,
        "max_position_embeddings": 8,
    }
    return BertConfig(**{**fields, **changes})


BERT_CARD = """
title = "A tiny BERT"
source = "huggingface"
id = "nobody/tiny-bert"
architecture = "BertModel"
{checkpoint}
[config]
n_layers = 2
n_heads = 2
d_model = 16
d_head = 8
d_mlp = 24
n_ctx = 8
d_vocab = 50
act_fn = "gelu"
attention_dir = "bidirectional"
"""


@pytest.fixture
def bert_folder(tmp_path) -> tuple[Path, BertModel]:
    """A saved tiny BERT and the model itself, on eager attention."""
    model = BertModel(tiny_bert()).eval()
    model.save_pretrained(tmp_path / "bert")
    model.set_attn_implementation("eager")
    return tmp_path / "bert", model


def bert_card(tmp_path: Path, text: str = BERT_CARD, checkpoint: str = "") -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(text.format(checkpoint=checkpoint))
    return path


@pytest.mark.parametrize("named_in", ["the call", "the card"])
def test_a_bert_from_a_folder(tmp_path, bert_folder, named_in):
    folder, eager = bert_folder
    if named_in == "the call":
        model = pk.load(bert_card(tmp_path), checkpoint=folder)
    else:
        model = pk.load(bert_card(tmp_path, checkpoint=f'checkpoint = "{folder}"'))
    expected = run(eager, IDS).last_hidden_state
    torch.testing.assert_close(run(model, IDS), expected, rtol=0, atol=1e-5)
    with pk.attach(model, pk.SetPattern(lambda pattern: pattern)):
        assert torch.equal(run(model, IDS), expected)


def test_a_t5_from_a_folder(tmp_path):
    config = T5Config(
        d_model=16,
        d_kv=4,
        d_ff=24,
        num_layers=2,
        num_heads=2,
        vocab_size=50,
        decoder_start_token_id=0,
    )
    hf = T5ForConditionalGeneration(config).eval()
    hf.save_pretrained(tmp_path / "t5")
    hf.set_attn_implementation("eager")
    card = tmp_path / "tiny-t5.toml"
    card.write_text(
        'title = "A tiny T5"\nsource = "huggingface"\nid = "nobody/t5"\n'
        'architecture = "T5ForConditionalGeneration"\n'
        "[config]\nn_layers = 2\nn_heads = 2\nd_model = 16\nd_head = 4\nd_vocab = 50\n"
    )
    model = pk.load(card, checkpoint=tmp_path / "t5")
    expected = run(hf, input_ids=IDS, decoder_input_ids=IDS[:, :4]).logits
    ours = run(model, IDS, decoder_input=IDS[:, :4])
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
    with pk.attach(model, pk.SetPattern(lambda pattern: pattern)):
        assert torch.equal(run(model, IDS, decoder_input=IDS[:, :4]), expected)


def test_a_card_that_does_not_fit_lists_every_difference(tmp_path, bert_folder):
    text = BERT_CARD.replace("n_layers = 2", "n_layers = 3").replace("d_mlp = 24", "d_mlp = 25")
    with pytest.raises(pk.CardError) as error:
        pk.load(bert_card(tmp_path, text), checkpoint=bert_folder[0])
    assert str(error.value) == (
        "card 'tiny' does not fit nobody/tiny-bert: n_layers is 2, the card says 3; d_mlp is 24, "
        "the card says 25"
    )


def test_a_checkpoint_that_lacks_weights_is_refused_rather_than_filled_at_random(tmp_path):
    """A folder of another kind of model: transformers itself only notes that it draws the rest."""
    hf = T5ForConditionalGeneration(
        T5Config(d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2, vocab_size=50)
    )
    hf.save_pretrained(tmp_path / "t5")
    with pytest.raises(pk.CardError) as error:
        pk.load(bert_card(tmp_path), checkpoint=tmp_path / "t5")
    assert str(error.value) == (
        f"{tmp_path / 't5'} lacks 197 weights of BertModel: embeddings.LayerNorm.bias, "
        "embeddings.LayerNorm.weight, embeddings.position_embeddings.weight, ..."
    )


def test_a_missing_pooler_is_no_fault(tmp_path):
    model = BertModel(tiny_bert(), add_pooling_layer=False).eval()
    model.save_pretrained(tmp_path / "bert")
    ours = run(pk.load(bert_card(tmp_path), checkpoint=tmp_path / "bert"), IDS)
    torch.testing.assert_close(ours, run(model, IDS).last_hidden_state, rtol=0, atol=1e-5)


def test_a_damaged_folder_names_the_folder(tmp_path, bert_folder):
    folder, _ = bert_folder
    (folder / "model.safetensors").write_bytes(b"short")
    with pytest.raises(pk.CardError, match=rf"^checkpoint {folder} cannot be loaded \("):
        pk.load(bert_card(tmp_path), checkpoint=folder)


def test_an_unknown_architecture_is_answered_with_the_closest(tmp_path, bert_folder):
    card = bert_card(tmp_path, BERT_CARD.replace("BertModel", "BertModl"))
    with pytest.raises(
        pk.CardError, match=r"^card 'tiny': transformers has no 'BertModl'; closest: .*'BertModel'"
    ):
        pk.load(card, checkpoint=bert_folder[0])


# No network


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


def test_a_dead_proxy_is_found_out_at_once(monkeypatch, empty_cache):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    began = time.perf_counter()
    with pytest.raises(pk.CardError) as error:
        pk.load("minilm")
    assert time.perf_counter() - began < 1
    assert str(error.value) == not_here(empty_cache)


def test_an_interrupted_download_is_taken_up_again(monkeypatch, empty_cache):
    asked: list[bool] = []

    class Pretrained:
        @staticmethod
        def from_pretrained(name: str, **kwargs: Any) -> Any:
            asked.append(kwargs["local_files_only"])
            raise OSError("no weights")

    monkeypatch.setattr(loading, "_cached", lambda card: True)
    monkeypatch.setattr(loading, "_hub_answers", lambda: True)
    monkeypatch.setattr(loading.transformers, "BertModel", Pretrained)
    with pytest.raises(pk.CardError):
        pk.load("minilm")
    assert asked == [True, False]


def test_a_model_of_another_family_is_refused():
    config = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, vocab_size=9)
    with pytest.raises(pk.CardError) as error:
        pk.load("t5-small", hf_model=BertForMaskedLM(config))
    assert str(error.value) == (
        "card 't5-small' describes a t5 model, hf_model is a bert; take a card of that family "
        "(pk.list_models()) or call pk.wrap(hf_model)"
    )


def test_the_hub_is_asked_where_it_answers(monkeypatch, empty_cache):
    asked: list[Any] = []

    class Connection:
        def close(self) -> None:
            pass

    class Pretrained:
        @staticmethod
        def from_pretrained(name: str, **kwargs: Any) -> Any:
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


# Weights


@pytest.mark.parametrize("name", ["native", "bert", "t5", "clip"])
def test_weights_round_trip_through_safetensors(tmp_path, name):
    family = families.ALL[name]()
    stored = weights(family.model)
    assert not [key for key in stored if "_original_component" in key or "probekit" in key]
    save_file({key: tensor.detach() for key, tensor in stored.items()}, tmp_path / "w.safetensors")
    expected = family.run()
    with torch.no_grad():
        for tensor in stored.values():
            tensor.zero_()
    assert not torch.equal(family.run(), expected)
    load_weights(family.model, load_file(tmp_path / "w.safetensors"))
    assert torch.equal(family.run(), expected)


@pytest.mark.parametrize("name", ["bert", "t5", "clip", "dinov2"])
def test_weights_are_those_of_the_unwrapped_model_with_tied_ones_once(name):
    family = families.ALL[name]()
    assert family.eager is not None
    own, theirs = weights(family.model), family.eager.state_dict()
    shared = {tensor.data_ptr() for tensor in theirs.values()}
    assert len(own) == len(shared)
    assert len(theirs) > len(own) or name in ("clip", "dinov2")  # which tie nothing
    assert set(own) <= set(theirs)
    for key, tensor in own.items():
        assert torch.equal(tensor, theirs[key])


def test_a_native_model_from_a_checkpoint(tmp_path):
    one = pk.load("grokking", seed=1, **SMALL)
    save_file({k: t.detach() for k, t in weights(one).items()}, tmp_path / "w.safetensors")
    two = pk.load("grokking", seed=2, checkpoint=tmp_path / "w.safetensors", **SMALL)
    assert torch.equal(run(two, IDS), run(one, IDS))


def test_weights_that_do_not_fit_list_every_difference():
    model = pk.load("grokking", seed=0, **SMALL)
    other = {name: tensor.detach().clone() for name, tensor in weights(model).items()}
    other["extra"] = other.pop("ln_out.weight")
    other["pos.weight"] = other["pos.weight"][:3]
    before = {name: tensor.clone() for name, tensor in weights(model).items()}
    with pytest.raises(pk.CardError) as error:
        load_weights(model, other)
    assert str(error.value) == (
        "the checkpoint does not fit the model: missing ln_out.weight; unexpected extra; "
        "pos.weight has shape (3, 64), the model (8, 64)"
    )
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(model).items())


# Twins


@pytest.mark.parametrize("name", [*families.ALL])
def test_a_random_twin_has_the_same_shapes_and_other_numbers(name):
    family = families.ALL[name]()
    state = torch.get_rng_state()
    twin, again, other = (pk.random_twin(family.model, seed) for seed in (5, 5, 6))
    assert torch.equal(torch.get_rng_state(), state)
    own, theirs = weights(family.model), weights(twin)
    assert {k: t.shape for k, t in own.items()} == {k: t.shape for k, t in theirs.items()}
    matrices = [key for key, tensor in own.items() if tensor.ndim > 1 and tensor.std() > 0]
    assert len(matrices) > 5
    assert not any(torch.equal(own[key], theirs[key]) for key in matrices)
    for key in matrices:  # from the same law
        ratio = float(theirs[key].detach().std() / own[key].detach().std())
        assert 0.5 < ratio < 2, key
    assert same(twin, again) and not same(twin, other)
    with torch.no_grad():
        output = family.output(twin(*family.args, **family.kwargs))
    assert output.shape == family.run().shape and not torch.equal(output, family.run())
    assert twin.training == family.model.training


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", ["native", "bert"])
def test_a_twin_is_in_the_mode_of_its_model(name, training):
    model = families.ALL[name]().model
    model.train(training)
    assert {module.training for module in pk.random_twin(model, 0).modules()} == {training}


def test_a_twin_has_the_precision_of_its_model():
    model = pk.load("grokking", seed=0, dtype=torch.float64, **SMALL)
    assert next(pk.random_twin(model, 0).parameters()).dtype == torch.float64


def test_a_twin_of_a_model_without_pooler_has_none_either():
    model = pk.wrap(BertModel(tiny_bert(), add_pooling_layer=False))
    assert weights(pk.random_twin(model, 0)).keys() == weights(model).keys()


def test_a_twin_is_independent_of_its_model():
    family = families.bert()
    clean, twin = family.run(), pk.random_twin(family.model, 0)
    with pk.attach(twin, pk.AttentionScale(0)):
        assert torch.equal(family.run(), clean)
        twin(*family.args, **family.kwargs)
    with torch.no_grad():
        for tensor in weights(twin).values():
            tensor.zero_()
    assert torch.equal(family.run(), clean)
    assert twin.original_model.config is not family.model.original_model.config


# The real MiniLM


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
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
    for part in ("pattern", "scores"):
        with pk.attach(minilm, pk.Edit(part, lambda x: x)):
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
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
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
