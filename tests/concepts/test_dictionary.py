"""Dictionaries of an MLP: one whose features are the MLP's own neurons, files of two libraries, and formulas beside them."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from circuits.concepts import Dictionary, read_dictionary, read_feature, read_features, train_dictionary
from circuits.errors import CircuitsError, FileFormatError, GraphError
from circuits.graph import Node
from circuits.models import Edit, Model, TokenBatch
from circuits.models.planted import planted_branches

CLASSES, EACH = 3, 4


@pytest.fixture(scope="module")
def model() -> Model:
    """The planted model, whose next tokens hang on what its neurons write."""
    planted = planted_branches(classes=CLASSES, each=EACH, n_layers=2).model
    W_U = planted.weights.W_U
    more = torch.randn(W_U.shape, generator=torch.Generator().manual_seed(0), dtype=W_U.dtype)
    return dataclasses.replace(planted, weights=dataclasses.replace(planted.weights, W_U=W_U + more))


@pytest.fixture(scope="module")
def tokens() -> TokenBatch:
    ids = torch.randint(1, 1 + CLASSES * EACH, (6, 9), generator=torch.Generator().manual_seed(1))
    ids[:, 0] = 0
    return TokenBatch.unpadded(ids)


@pytest.fixture(scope="module")
def own(model: Model) -> Dictionary:
    """The neurons of layer 0 as features, and one that never is active."""
    mlp = model.weights.blocks[0].mlp
    assert mlp is not None
    rows = torch.cat([mlp.W_out, mlp.W_out[:1]])
    W_enc = torch.cat([torch.linalg.pinv(mlp.W_out).T, torch.zeros_like(mlp.W_out[:1])])
    bias = torch.tensor([-1e-9, -1e-9, -1e-9, -1.0], dtype=rows.dtype)  # what is 0 is 0 but for rounding
    zeros = torch.zeros(model.d_model, dtype=rows.dtype)
    return Dictionary("neurons", "m0", "relu", 0, W_enc, bias, rows, zeros, torch.zeros_like(bias))


def losses(model: Model, tokens: TokenBatch, edits: list[Edit] | None = None) -> Tensor:
    logits = model.run(tokens, edits=edits or []).logits[:, :-1].log_softmax(dim=-1)
    return -logits.gather(-1, tokens.ids[:, 1:, None])[..., 0]


def test_neurons_as_features_explain_all_that_an_mlp_writes(model: Model, tokens: TokenBatch, own: Dictionary) -> None:
    found = read_features(model, own, tokens)
    assert found.explained == pytest.approx(1.0) and found.recovered == pytest.approx(1.0) and found.dead == 1
    assert found.loss == pytest.approx(float(losses(model, tokens).mean())) and found.at_once == pytest.approx(1.0)
    body = tokens.ids[:, 1:]
    for feature in range(CLASSES):
        inside = (body > feature * EACH) & (body <= (feature + 1) * EACH)
        assert float(found.active[feature]) == pytest.approx(float(inside.double().mean()))
        assert (int(found.triggers[feature]) - 1) // EACH == feature
    mean = model.run(tokens, keep="writes").mlps[0][:, 1:].mean(dim=(0, 1))
    there = torch.ones_like(tokens.mask).index_fill_(1, torch.tensor([0]), False)
    removed = [Edit("m0", lambda y: torch.where(there[..., None], mean, y))]
    assert found.loss_removed == pytest.approx(float(losses(model, tokens, removed).mean()))


def test_taking_a_feature_out_is_taking_its_neuron_out(model: Model, tokens: TokenBatch, own: Dictionary) -> None:
    found = read_feature(model, own, 1, tokens, top=3)
    fires = (tokens.ids > EACH) & (tokens.ids <= 2 * EACH)
    change = losses(model, tokens, [Edit("m0.n1", 0.0)]) - losses(model, tokens)
    rows = [row[mask].mean() for row, mask in zip(change, fires[:, :-1], strict=True) if bool(mask.any())]
    assert found.cost == pytest.approx(float(torch.stack(rows).mean())) and found.cost_low < found.cost < found.cost_high
    assert found.whole == pytest.approx(float(change[:, 1:].mean())) and found.prompts == len(rows)
    assert len(found.triggers) == 3 and all((int(one.tokens[one.at]) - 1) // EACH == 1 for one in found.triggers)
    raised = own.W_dec[1] @ model.weights.W_U
    assert int(found.raises[0][0]) == int(raised.argmax()) and found.raises[0][1] == pytest.approx(float(raised.max()))
    dead = read_feature(model, own, 3, tokens)
    assert dead.triggers == () and dead.active == 0 and dead.cost == 0 and "never active" in dead.summary


def test_first_order_effects_are_slopes_of_the_loss(model: Model, tokens: TokenBatch, own: Dictionary) -> None:
    found, step = read_features(model, own, tokens), 1e-5
    for feature in range(CLASSES):
        lower = losses(model, tokens, [Edit(Node("neuron", 0, feature), lambda a: a * (1 - step))])
        slope = (lower - losses(model, tokens)).mean() / step
        assert float(found.effect[feature]) == pytest.approx(float(slope), rel=1e-3, abs=1e-6)


def test_kinds_of_features_are_what_they_say() -> None:
    generator = torch.Generator().manual_seed(2)
    W_enc, W_dec, y = (torch.randn(7, 5, generator=generator) for _ in range(3))
    b_enc, b_dec = torch.randn(7, generator=generator), torch.randn(5, generator=generator)
    pre = torch.stack([W_enc @ row + b_enc for row in y])
    relu = Dictionary("d", "", "relu", 0, W_enc, b_enc, W_dec, b_dec, torch.zeros(7))
    torch.testing.assert_close(relu.encode(y), pre.clamp(min=0))
    torch.testing.assert_close(relu.decode(relu.encode(y)), pre.clamp(min=0) @ W_dec + b_dec)
    topk = dataclasses.replace(relu, kind="topk", k=2)
    for row, found in zip(pre, topk.encode(y), strict=True):
        kept = set(row.argsort(descending=True)[:2].tolist())
        wanted = torch.tensor([max(0.0, float(v)) if n in kept else 0.0 for n, v in enumerate(row)])
        torch.testing.assert_close(found, wanted)
    jump = dataclasses.replace(relu, kind="jumprelu", threshold=torch.full((7,), 0.5))
    torch.testing.assert_close(jump.encode(y), torch.where(pre > 0.5, pre, 0.0))


def test_a_saved_dictionary_comes_back(own: Dictionary, tmp_path: Path) -> None:
    own.save(tmp_path / "d.safetensors")
    again = read_dictionary(tmp_path / "d.safetensors")
    assert (again.name, again.site, again.kind) == ("neurons", "m0", "relu") and torch.equal(again.W_enc, own.W_enc)


def written(folder: Path, file: str, config: dict[str, Any], tensors: dict[str, Tensor]) -> Path:
    folder.mkdir()
    (folder / "cfg.json").write_text(json.dumps(config))
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / file)
    return folder


def parts() -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    W_enc, b_enc, W_dec, b_dec, y = (torch.randn(size, generator=generator) for size in ((8, 5), (8,), (8, 5), (5,), (4, 5)))
    return W_enc, b_enc, W_dec, b_dec, y


def test_sparsify_s_folder_is_read(tmp_path: Path) -> None:
    W_enc, b_enc, W_dec, b_dec, y = parts()
    tensors = {"encoder.weight": W_enc, "encoder.bias": b_enc, "W_dec": W_dec, "b_dec": b_dec}
    config = {"activation": "topk", "k": 3, "transcode": False, "skip_connection": False, "d_in": 5}
    found = read_dictionary(written(tmp_path / "layers.2.mlp", "sae.safetensors", config, tensors))
    pre = ((y - b_dec) @ W_enc.T + b_enc).relu()
    kept = pre >= pre.sort(dim=1, descending=True).values[:, 2:3]
    torch.testing.assert_close(found.encode(y), pre * kept, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.decode(pre), pre @ W_dec + b_dec)
    assert found.site == "m2" and found.k == 3


@pytest.mark.parametrize("kind", ["standard", "jumprelu", "topk"])
def test_saelens_folder_is_read(kind: str, tmp_path: Path) -> None:
    W_enc, b_enc, W_dec, b_dec, y = parts()
    tensors = {"W_enc": W_enc.T, "b_enc": b_enc, "W_dec": W_dec, "b_dec": b_dec}
    config: dict[str, Any] = {"architecture": kind, "apply_b_dec_to_input": kind != "topk", "normalize_activations": "none"}
    config |= {"metadata": {"hook_name": "blocks.1.hook_mlp_out"}}
    pre = (y - (b_dec if kind != "topk" else 0)) @ W_enc.T + b_enc
    if kind == "jumprelu":
        tensors["threshold"] = torch.full((8,), 0.7)
        wanted = pre * (pre > 0.7)
    elif kind == "topk":
        config |= {"k": 2, "rescale_acts_by_decoder_norm": True}
        pre = pre.relu() * W_dec.norm(dim=1)
        wanted = pre * (pre >= pre.sort(dim=1, descending=True).values[:, 1:2])
    else:
        wanted = pre.relu()
    found = read_dictionary(written(tmp_path / "sae", "sae_weights.safetensors", config, tensors))
    torch.testing.assert_close(found.encode(y), wanted, atol=1e-5, rtol=1e-5)
    given = wanted @ (W_dec / W_dec.norm(dim=1, keepdim=True) if kind == "topk" else W_dec) + b_dec
    torch.testing.assert_close(found.decode(found.encode(y)), given, atol=1e-5, rtol=1e-5)
    assert found.site == "m1"


def test_saelens_s_gates_are_thresholds_of_their_own(tmp_path: Path) -> None:
    """By its own words: the gate's path decides which features are active, the magnitude's by how much."""
    W_enc, b_gate, W_dec, b_dec, y = parts()
    r_mag, b_mag = torch.linspace(-0.5, 0.5, 8), torch.linspace(6.0, -6.0, 8)
    tensors = {"W_enc": W_enc.T, "b_gate": b_gate, "b_mag": b_mag, "r_mag": r_mag, "W_dec": W_dec, "b_dec": b_dec}
    config = {"architecture": "gated", "apply_b_dec_to_input": True, "metadata": {"hook_name": "blocks.1.hook_resid_pre"}}
    found = read_dictionary(written(tmp_path / "sae", "sae_weights.safetensors", config, tensors))
    shared = (y - b_dec) @ W_enc.T
    magnitude, gate = shared * r_mag.exp() + b_mag, shared + b_gate
    assert bool(((gate > 0) & (magnitude <= 0)).any() and ((gate <= 0) & (magnitude > 0)).any()), "each path decides somewhere"
    torch.testing.assert_close(found.encode(y), magnitude.relu() * (gate > 0), atol=1e-5, rtol=1e-5)
    assert (found.kind, found.site, found.reads) == ("jumprelu", "resid1", "")


@pytest.mark.parametrize("kind", ["transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder"])
def test_saelens_s_transcoders_are_read(kind: str, tmp_path: Path) -> None:
    W_enc, b_enc, W_dec, b_out, r = parts()
    W_skip = torch.randn(5, 5, generator=torch.Generator().manual_seed(4))
    tensors = {"W_enc": W_enc.T, "b_enc": b_enc, "W_dec": W_dec, "b_dec": b_out}
    tensors |= {"W_skip": W_skip} if "skip" in kind else {}
    tensors |= {"threshold": torch.full((8,), 0.4)} if "jumprelu" in kind else {}
    hooks = {"hook_name": "blocks.1.ln2.hook_normalized", "hook_name_out": "blocks.1.hook_mlp_out"}
    config = {"architecture": kind, "d_in": 5, "d_out": 5, "d_sae": 8, "metadata": hooks}
    found = read_dictionary(written(tmp_path / "transcoder", "sae_weights.safetensors", config, tensors))
    z = r @ W_enc.T + b_enc  # no bias is taken off what it reads
    z = z * (z > 0.4) if "jumprelu" in kind else z.relu()
    torch.testing.assert_close(found.encode(r), z, atol=1e-5, rtol=1e-5)
    made = z @ W_dec + b_out + (r @ W_skip.T if "skip" in kind else 0)
    torch.testing.assert_close(found.given(r), made, atol=1e-5, rtol=1e-5)
    assert found.site == "m1" and found.reads


def test_what_is_no_dictionary_is_refused(model: Model, own: Dictionary, tokens: TokenBatch, tmp_path: Path) -> None:
    W_enc, b_enc, W_dec, b_dec, _ = parts()
    tensors = {"encoder.weight": W_enc, "encoder.bias": b_enc, "W_dec": W_dec, "b_dec": b_dec}
    for number, (config, words) in enumerate(
        (
            ({"k": 3, "d_in": 7}, "d_in is 7, its weights are 5 wide"),
            ({"k": 3, "activation": "groupmax"}, "activation is 'groupmax'"),
            ({"k": 30}, "topk needs 1 to 8"),
            ({}, "lacks 'k'"),
        )
    ):
        folder = written(tmp_path / f"{number}", "sae.safetensors", config, tensors)
        with pytest.raises(FileFormatError, match=words):
            read_dictionary(folder)
    other = written(tmp_path / "gated", "sae_weights.safetensors", {"architecture": "temporal"}, {"W_enc": W_enc})
    alone = tmp_path / "alone.safetensors"
    save_file(tensors, alone)
    (tmp_path / "empty").mkdir()
    for path, words in (
        (other, "architecture is 'temporal'"),
        (alone, "no cfg.json beside it"),
        (tmp_path / "empty", "holds no sae"),
    ):
        with pytest.raises(FileFormatError, match=words):
            read_dictionary(path)
    for made, at, words in (
        (dataclasses.replace(own, site=""), None, "does not say of which place"),
        (own, "m7", "has no m7: it has 2 layers"),
        (own, "a0.h0", "is no place of a dictionary"),
        (Dictionary("d", "m0", "relu", 0, W_enc, b_enc, W_dec, b_dec, torch.zeros(8)), None, "5 wide"),
    ):
        with pytest.raises(GraphError, match=words):
            read_features(model, made, tokens, at=at)
    with pytest.raises(GraphError, match="no feature 4: expected 0 to 3"):
        read_feature(model, own, 4, tokens)


def test_a_dictionary_is_trained_by_sparsify_or_refused(model: Model, tokens: TokenBatch) -> None:
    try:
        import sparsify  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError:
        with pytest.raises(CircuitsError, match=r"needs eai-sparsify.*pip install"):
            train_dictionary(model, "m0", tokens, features=6, k=1)
        return
    few: dict[str, Any] = {"features": 6, "k": 1, "steps": 300, "batch": 32, "rate": 0.02}
    found = train_dictionary(model, "m0", tokens, **few)
    assert read_features(model, found, tokens).explained > 0.95 and found.site == "m0" and found.k == 1
    assert torch.equal(found.W_dec, train_dictionary(model, "m0", tokens, **few).W_dec), "the same seed, the same dictionary"
    torch.testing.assert_close(found.W_dec.norm(dim=1), torch.ones(6), atol=1e-4, rtol=0)
