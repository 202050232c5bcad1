"""Dictionaries that SAELens trained and saved, read here: encoding, exactness, attribution, a circuit and a graph of features.

    python experiments/feature_dictionaries.py [--python ENV/bin/python] [--place resid2] [--tasks greater-than,induction]
        [--out FOLDER]

Activations of `mini`, over text that it wrote and over prompts of the tasks (of another seed than those judged), go to
`saelens_training.py`, which runs in an environment of its own (made here unless `--python` names one), trains a dictionary of
each architecture by the library's trainer, and keeps what the library computes. Then: the largest difference between its
encoding and decoding and ours; between the logits of the model and of features + error; between attributions and finite
differences (relative, float64); and the exported attribution graph is validated against the schema. Of each task: what share of
the variance on its prompts, and of the change from clean to corrupt ones, the dictionary explains; whether attributions of
single features are what patching each by a run of its own does; and the circuit with its verdict, errors in and out.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from typing import Any

import jsonschema
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from circuits.cli.progress import ProgressBars
from circuits.concepts import (
    Dictionary,
    attribute_features,
    attribution_graph,
    find_feature_circuit,
    read_dictionary,
    save_graph_file,
)
from circuits.concepts.feature_nodes.taps import parsed_node, put_together, taps_of
from circuits.concepts.features.standing import onward, standing
from circuits.concepts.features.training import standing_at
from circuits.models import Model, TokenBatch, load_model
from circuits.models.layers import unembed
from circuits.patching.engine.reading import Reading
from circuits.patching.engine.sites import differing
from circuits.tasks import PromptPairs
from circuits.tasks.registry import task
from circuits.tasks.sources.corpus import written_text

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = ("sae-lens==6.51.1", "transformer-lens<4", "torch==2.13.0")
"""It takes a TransformerLens below 4: of 4 it lacks a module, whatever its requirements say."""
SCHEMA = ROOT / "tests" / "graph" / "neuronpedia_schema.json"
_HOOKS = {"resid": "blocks.{}.hook_resid_pre", "m": "blocks.{}.hook_mlp_out", "mid": "blocks.{}.hook_resid_mid"}
TRAINED = ("standard", "topk", "jumprelu", "gated")
SAVED = (*TRAINED, "transcoder", "skip_transcoder", "jumprelu_skip_transcoder")


def other_python(folder: Path) -> Path:
    """An environment with the library, made in a folder."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", *LIBRARY], check=True)
    return python


def write_rows(model: Model, place: str, tokens: TokenBatch, options: argparse.Namespace, file: Path) -> int:
    """What stands at a place over a text, and over prompts of the tasks that are not judged, for the library to train on."""
    prefix = place.rstrip("0123456789")
    parts = [standing_at(model, place, tokens)]
    for name in options.tasks.split(","):
        pairs = task(name).pairs(model, options.prompts, 1)
        parts += [standing_at(model, place, side) for side in (pairs.clean, pairs.corrupt)]
    rows = torch.cat(parts).float()
    save_file({"rows": rows.contiguous()}, file, metadata={"hook": _HOOKS[prefix].format(place.removeprefix(prefix))})
    return len(rows)


def encoding_error(dictionary: Dictionary, rows: Tensor, computed: Path) -> tuple[float, float]:
    """The largest difference between what the library computed and what is computed here: activations, what they make."""
    theirs = load_file(computed)
    z = dictionary.encode(rows)
    made = dictionary.decode(z) + dictionary.skipped(rows)
    return float((z - theirs["z"]).abs().max()), float((made - theirs["given"]).abs().max())


@torch.no_grad()
def reproduction(model: Model, dictionary: Dictionary, tokens: TokenBatch) -> float:
    """The largest difference between the logits of the model and those with what stands there put together from the nodes."""
    (tap,) = taps_of(model, dictionary)
    run = model.run(tokens)
    made = put_together(tap, tap.apart(run))
    x = onward(model.weights, run, tap.writes, made)
    return float((unembed(model.weights, x) - run.logits).abs()[tokens.mask].max())


def slope_error(model: Model, dictionary: Dictionary, pairs: PromptPairs, metric: Any, top: int) -> float:
    """The largest relative difference between attributions (the clean run's gradient) and finite differences."""
    found = attribute_features(model, dictionary, pairs, metric, method="eap", exact=0, keep=top)
    (tap,) = taps_of(model, dictionary)
    own, other = (tap.apart(model.run(tokens)) for tokens in (pairs.clean, pairs.corrupt))
    run, mask = model.run(pairs.clean), differing(pairs, causal=True)[..., None]
    reading, worst = Reading.of(metric, pairs), 0.0
    for name, scores in zip(found.names, found.scores, strict=True):
        feature = parsed_node([tap], name)[1]
        if isinstance(feature, str):
            change = other.rest(feature) - own.rest(feature)
        else:
            at = torch.tensor([feature])
            change = (tap.dictionary.some(other.r, at) - tap.dictionary.some(own.r, at)) * tap.dictionary.W_dec[feature]
        ends = []
        for step in (1e-5, -1e-5):
            x = onward(model.weights, run, tap.writes, standing(run, tap.writes) + step * mask * change)
            ends.append(reading.scores(model.weights, reading.at_columns(x)[None])[0])
        slope = float(((ends[0] - ends[1]) / 2e-5).mean())
        worst = max(worst, abs(float(scores.mean()) - slope) / max(abs(slope), 1e-6))
    return worst


def unexplained(model: Model, dictionary: Dictionary, pairs: PromptPairs) -> dict[str, float]:
    """The shares of variance on a task's prompts, and of the change from clean to corrupt ones, that the dictionary leaves."""
    (tap,) = taps_of(model, dictionary)
    own, other = (tap.apart(model.run(tokens)) for tokens in (pairs.clean, pairs.corrupt))
    mask = differing(pairs, causal=True)
    y, error = own.y[mask], own.error[mask]
    change, missed = (other.y - own.y)[mask], (other.error - own.error)[mask]
    active = float((dictionary.encode(y) > 0).sum(dim=-1).double().mean())
    of_variance = float(error.square().sum() / (y - y.mean(dim=0)).square().sum())
    return {"active": active, "of_variance": of_variance, "of_change": float(missed.square().sum() / change.square().sum())}


@torch.no_grad()
def circuit_of(model: Model, dictionary: Dictionary, name: str, options: argparse.Namespace) -> dict[str, Any]:
    """A task's circuit with its verdict, and what explains it."""
    asked = task(name)
    pairs = asked.pairs(model, options.count, 0)
    metric: Any = asked.metric(model, pairs)
    half = len(pairs) // 2
    row: dict[str, Any] = {"left": unexplained(model, dictionary, pairs)}
    row["agreement"] = attribute_features(model, dictionary, pairs[half:], metric, exact=50).agreement
    circuit = find_feature_circuit(
        model, dictionary, pairs[:half], metric, held_out=pairs[half:], random_sets=options.random, steps=5
    )
    circuit.save(options.out / f"{dictionary.name}.{name}.json")
    ends = ("faithfulness", "errors_out", "errors_in", "errors_alone", "without")
    row |= {end: [round(number, 3) for number in vars(getattr(circuit, end)).values()] for end in ends}
    row |= {"features": len(circuit.features), "rests": list(circuit.rests), "p_value": circuit.p_value, "p_out": circuit.p_out}
    return row | {"random": max(circuit.null), "random_out": max(circuit.null_out), "summary": circuit.summary}


def measured(model: Model, exact: Model, dictionary: Dictionary, options: argparse.Namespace, out: Path) -> dict[str, Any]:
    """All that is shown of one dictionary."""
    names = options.tasks.split(",")
    asked = task(names[0])
    pairs = asked.pairs(model, options.count, 0)
    metric: Any = asked.metric(model, pairs)
    began = time.perf_counter()
    row: dict[str, Any] = {"reproduced": reproduction(model, dictionary, pairs.clean)}
    row["slope_error"] = slope_error(exact, dictionary, pairs[:8], metric, 12)
    row["circuits"] = {name: circuit_of(model, dictionary, name, options) for name in names}
    tokens = pairs.clean[:1]
    tokens = TokenBatch.unpadded(tokens.ids[:, tokens.mask[0]])
    graph = attribution_graph(model, dictionary, tokens)
    document = save_graph_file(graph, out / f"{dictionary.name}.neuronpedia.json", slug=dictionary.name, scan=model.name)
    jsonschema.Draft7Validator(json.loads(SCHEMA.read_text())).validate(document)
    return row | {"graph": graph.summary, "seconds": time.perf_counter() - began}


def main() -> None:
    """Train there, read and measure here, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", type=Path, help="an environment that has the library")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--place", default="resid2")
    parser.add_argument("--tasks", default="greater-than,gendered-pronoun,induction")
    parser.add_argument("--prompts", type=int, default=512, help="of each task, clean and corrupt, that are trained on")
    parser.add_argument("--count", type=int, default=64, help="prompts of each task, half to choose on and half to judge on")
    parser.add_argument("--random", type=int, default=100, help="random sets of features at most")
    parser.add_argument("--tokens", type=int, default=20_000)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--features", type=int, default=1024)
    parser.add_argument("--out", type=Path, default=Path("out/feature-dictionaries"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    model = load_model(options.model)
    exact = load_model(options.model, dtype=torch.float64)
    with ProgressBars() as progress:
        text = written_text(model, count=options.tokens // 64, length=64, seed=0, progress=progress)
    rows = options.out / "rows.safetensors"
    count = write_rows(model, options.place, text, options, rows)
    with tempfile.TemporaryDirectory() as folder:
        python = options.python or other_python(Path(folder) / "env")
        command = [python, Path(__file__).with_name("saelens_training.py"), rows, options.out / "saved"]
        more = ["--steps", str(options.steps), "--features", str(options.features)]
        began = time.perf_counter()
        subprocess.run([*map(str, command), *more], check=True)
        print(f"trained on {count:,} rows in {time.perf_counter() - began:.0f} s")
    first = load_file(rows)["rows"][:64]
    found: dict[str, Any] = {}
    for name in SAVED:
        dictionary = read_dictionary(options.out / "saved" / name)
        z, made = encoding_error(dictionary, first, options.out / "saved" / f"{name}.computed.safetensors")
        found[name] = {"z": z, "given": made, "at": dictionary.site, "kind": dictionary.kind}
        if name in TRAINED:
            found[name] |= measured(model, exact, dictionary, options, options.out)
        print(name, json.dumps(found[name], indent=1), flush=True)
    card = {"options": {key: str(value) for key, value in vars(options).items()}, "found": found}
    (options.out / "card.json").write_text(json.dumps(card, indent=1))


if __name__ == "__main__":
    main()
