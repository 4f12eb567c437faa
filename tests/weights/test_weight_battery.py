"""The battery on the real MiniLM against plain NumPy, and on small models of other families."""

import math
from typing import Any

import families
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from transformers import (
    BertModel,
    CLIPModel,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5ForConditionalGeneration,
)

import probekit as pk
from probekit.weights import WeightBattery, weight_battery

RENAMED = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "o": "attention.output.dense",
    "mlp_up": "intermediate.dense",
    "mlp_down": "output.dense",
}


@pytest.fixture(scope="module")
def battery(minilm_folder) -> WeightBattery:
    return weight_battery(minilm_folder, progress=False)


@pytest.fixture(scope="module")
def arrays(minilm_folder) -> dict[str, np.ndarray]:
    model = BertModel.from_pretrained(minilm_folder)
    return {name: p.detach().double().numpy() for name, p in model.named_parameters()}


def of_type(arrays: dict[str, np.ndarray], type: str) -> list[np.ndarray]:
    return [arrays[f"encoder.layer.{i}.{RENAMED[type]}.weight"] for i in range(6)]


def test_published_spectra(battery, arrays):
    assert len(battery.spectra) == 36
    for type in ("q", "mlp_down"):
        s = [np.linalg.svd(w, compute_uv=False) for w in of_type(arrays, type)]
        expected = {
            "stable_rank": [(v**2).sum() / v[0] ** 2 for v in s],
            "participation": [v.sum() ** 2 / (v**2).sum() for v in s],
            "active_fraction": [(v > 0.01 * v[0]).mean() for v in s],
            "amplitude_rank_90": [np.searchsorted(v.cumsum() / v.sum(), 0.9) + 1 for v in s],
            "condition": [v[0] / (v[-1] + 1e-10) for v in s],
        }
        pooled = battery.spectra_pooled.set_index(["type", "statistic"])
        for name, values in expected.items():
            assert pooled.loc[(type, name), "mean"] == pytest.approx(np.mean(values), rel=1e-6)
            assert pooled.loc[(type, name), "median"] == pytest.approx(np.median(values), rel=1e-6)
    assert pooled.loc[("q", "stable_rank"), "null"] == pytest.approx(96)


def test_published_sparsity(battery, arrays):
    pooled = battery.sparsity_pooled.set_index("type")
    assert set(pooled.index) == {*RENAMED, "embedding", "pooler", "all"}
    groups = {type: of_type(arrays, type) for type in ("q", "v", "mlp_up")}
    groups["all"] = [w for w in arrays.values() if w.ndim == 2]
    for type, matrices in groups.items():
        w = np.concatenate([m.ravel() for m in matrices])
        row = pooled.loc[type]
        assert row["number"] == w.size
        for threshold in (1e-6, 1e-4, 1e-3, 1e-2, 1e-1):
            # the weights are float32, and so is the published comparison
            expected = (np.abs(w).astype(np.float32) < np.float32(threshold)).mean()
            assert row[f"below_{threshold:g}"] == pytest.approx(expected, abs=2 / w.size)
        rms = math.sqrt((w**2).mean())
        assert row["below_0.1_null"] == pytest.approx(stats.norm.cdf(0.1 / rms) * 2 - 1)
        assert row["below_rms"] == pytest.approx((np.abs(w) < 0.1 * rms).mean(), rel=1e-4)
        assert row["kurtosis"] == pytest.approx(stats.kurtosis(w), rel=1e-6)


def test_published_qk(battery, arrays):
    assert len(battery.published_qk) == 6
    for layer in (0, 5):
        M = of_type(arrays, "q")[layer] @ of_type(arrays, "k")[layer].T
        s = np.linalg.svd(M, compute_uv=False)
        eigenvalues = np.sort(np.linalg.eigvalsh((M + M.T) / 2))[::-1]
        row = battery.published_qk.iloc[layer]
        assert row["stable_rank"] == pytest.approx((s**2).sum() / s[0] ** 2)
        assert row["participation"] == pytest.approx(s.sum() ** 2 / (s**2).sum())
        deviation = np.linalg.norm(M - M.T) / np.linalg.norm(M)
        assert row["symmetry_deviation"] == pytest.approx(deviation)
        assert row["n_positive"] == (eigenvalues > 0).sum()
        assert row["n_negative"] == (eigenvalues < 0).sum()
        assert [row[f"top_{i}"] for i in range(1, 6)] == pytest.approx(eigenvalues[:5])


def test_circuits_with_biases_and_scales(battery, arrays):
    """Layer 1, head 3, from whole 385 x 385 matrices; it reads the last norm of layer 0."""
    assert len(battery.qk) == 72
    rows, stem = slice(96, 128), "encoder.layer.1.attention.self"
    gamma = arrays["encoder.layer.0.output.LayerNorm.weight"]
    beta = arrays["encoder.layer.0.output.LayerNorm.bias"]
    factors, raw = [], []
    for side in ("query", "key"):
        W, b = arrays[f"{stem}.{side}.weight"][rows], arrays[f"{stem}.{side}.bias"][rows]
        raw.append(W)
        factors.append(np.concatenate([W * gamma, (W @ beta + b)[:, None]], 1))
    row = battery.qk.set_index(["layer", "head"]).loc[(1, 3)]
    for (Q, K), suffix in ((factors, ""), (raw, "_raw")):
        circuit = Q.T @ K
        s = np.linalg.svd(circuit, compute_uv=False)
        eigenvalues = np.linalg.eigvals(K @ Q.T)
        symmetric = np.linalg.eigvalsh((circuit + circuit.T) / 2)
        energy = (symmetric[symmetric > 0] ** 2).sum() / (symmetric**2).sum()
        score = eigenvalues.real.sum() / np.abs(eigenvalues).sum()
        assert row[f"stable_rank{suffix}"] == pytest.approx((s**2).sum() / s[0] ** 2)
        assert row[f"score{suffix}"] == pytest.approx(score)
        assert row[f"positive_energy{suffix}"] == pytest.approx(energy)


def test_published_neurons_and_layers(battery, arrays):
    up, down = of_type(arrays, "mlp_up"), of_type(arrays, "mlp_down")
    dead = weak = 0
    for i in range(6):
        c = np.linalg.norm(up[i], axis=1) * np.linalg.norm(down[i], axis=0)
        dead, weak = dead + (c < 0.01 * c.mean()).sum(), weak + (c < 0.1 * c.mean()).sum()
        assert battery.neurons["cv"][i] == pytest.approx(c.std() / c.mean())
    pooled = battery.neurons_pooled.iloc[0]
    assert (pooled["neurons"], pooled["dead"], pooled["weak"]) == (6 * 1536, dead, weak)
    neighbours = battery.layers_pooled.set_index("type")
    for type in ("q", "mlp_down"):
        flat = [w.ravel() for w in of_type(arrays, type)]
        norms = [np.linalg.norm(w) for w in flat]
        cosines = [flat[i] @ flat[i + 1] / (norms[i] * norms[i + 1] + 1e-8) for i in range(5)]
        row = neighbours.loc[type]
        assert row["adjacent_mean"] == pytest.approx(np.mean(cosines), rel=1e-6)
        assert row["adjacent_min"] == pytest.approx(min(cosines))
        assert row["adjacent_max"] == pytest.approx(max(cosines))
    circuits = [q.T @ k for q, k in zip(of_type(arrays, "q"), of_type(arrays, "k"), strict=True)]
    first, second = (c.ravel() / np.linalg.norm(c) for c in circuits[:2])
    pair = battery.layers.set_index(["type", "layer", "other_layer"]).loc[("circuit", 0, 1)]
    assert pair["cosine"] == pytest.approx(first @ second, rel=1e-6)
    assert pair["z"] == pytest.approx(384 * pair["cosine"]) and pair["cosine_null_sd"] == 1 / 384


def test_norms(battery, arrays):
    assert len(battery.norms) == 13 and not len(battery.position_bias)
    gamma = arrays["embeddings.LayerNorm.weight"]
    row = battery.norms.set_index("name").loc["embeddings.LayerNorm.weight"]
    assert (row["mean"], row["std"]) == pytest.approx((gamma.mean(), gamma.std()))


def test_a_hooked_model_reads_as_its_folder(battery, minilm):
    hooked = weight_battery(minilm, progress=False)
    for name, table in battery.tables.items():
        pd.testing.assert_frame_equal(hooked.tables[name], table, obj=name)


def test_t5_with_its_position_biases_and_cross_attention():
    model: Any = T5ForConditionalGeneration(families.tiny_t5())
    found = weight_battery(model, progress=False)
    assert set(found.qk["attention"]) == {"self", "cross"}
    cross = found.qk[found.qk["attention"] == "cross"]
    assert cross["score"].isna().all() and (cross["stable_rank"] >= 1).all()
    assert len(found.published_qk) == 6  # 2 + 2 layers, 2 of them with cross-attention
    assert len(found.position_bias) == 8
    table = model.decoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight.detach()
    rows = found.position_bias[found.position_bias["stack"] == "decoder"]
    for head, row in enumerate(rows.to_dict("records")):
        bias = table[:, head].double().numpy()
        assert row["argmax_bucket"] == bias.argmax()
        assert row["falling_first_half"] == (np.diff(bias[:16]) <= 0).mean()
        assert row["bucket_correlation"] == pytest.approx(stats.pearsonr(range(32), bias)[0])
    assert {"encoder", "decoder", "all"} == set(found.sparsity_pooled["stack"]) - {""}


def test_a_planted_bias_is_classified():
    """The table of a model whose decoder heads attend ever less with distance."""
    model: Any = T5ForConditionalGeneration(families.tiny_t5())
    bias = model.decoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight
    with torch.no_grad():
        bias.copy_(-torch.arange(32.0)[:, None].expand(32, 4))
    table = weight_battery(model, progress=False).position_bias.set_index("stack")
    assert set(table.loc["decoder", "kind_before"]) == {"monotone"}
    assert set(table.loc["encoder", "kind_before"]) == {"iid"}
    assert set(table.loc["decoder", "published_kind"]) == {"local"}


def test_towers_and_grouped_heads():
    towers = weight_battery(CLIPModel(families.tiny_clip()), progress=False)
    assert towers.qk.groupby("stack")["head"].nunique().to_dict() == {"text": 4, "vision": 2}
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "intermediate_size": 64,
        "vocab_size": 50,
    }
    heads: dict[str, Any] = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
    grouped = weight_battery(Qwen3ForCausalLM(Qwen3Config(**sizes, **heads)), progress=False)
    assert grouped.qk["key_head"].tolist() == [0, 0, 1, 1] * 2
    assert not len(grouped.published_qk) and "heads share keys" in grouped.notes[0]
    assert grouped.neurons["cv_null"][0] == pytest.approx((1.5 / 32) ** 0.5)


def test_a_random_twin_reads_its_nulls(built):
    twin = pk.random_twin(built("native").model, 3)
    found = weight_battery(twin, progress=False)
    ratio = found.spectra["stable_rank"] / found.spectra["stable_rank_null"]
    assert ratio.between(0.9, 1.4).all()
    assert (found.neurons["weak"] == 0).all() and found.norms["mean"].eq(1).all()


def test_unknown_heads_and_display(tmp_path):
    model = BertModel(families.tiny_bert())
    model.save_pretrained(tmp_path)
    (tmp_path / "config.json").unlink()
    found = weight_battery(tmp_path, progress=False)
    assert not len(found.qk) and "pass heads=" in found.notes[0]
    assert repr(found).startswith(f"WeightBattery('{tmp_path.name}': rows of spectra 12, ")
    assert "pass heads=" in repr(found) and "spectra (12)" in found._repr_html_()
    assert len(weight_battery(tmp_path, heads=4, progress=False).qk) == 8
