"""Speed of sweeps against one forward a patch, ROME's loop and TransformerLens' own functions, and against the arithmetic.

    python experiments/benchmarks/patching.py [--json] [--sample 12] [--device cuda] [--only heads]

GPT-2-small's shape with random weights (nothing is downloaded). `trace_states`, `trace_mlp_window`,
`trace_attention_window`: causal tracing of 20 tokens × 12 layers × 10 draws, subject at tokens 4 to 7; reference: ROME's
loop on the Hugging Face model. `heads`: all 144 heads over 8 prompts × 16 tokens; reference: one forward of the same model
a head. `q_edges`: one head of layer 0 to the queries of all 132 later heads; reference: TransformerLens'
`get_act_patch_direct_path`. References are timed on a sample of their patches, drawn evenly, and scaled; on that sample
the numbers are compared. "of floor": share of the time that the unavoidable matrix products take at the rate of a large
one measured in the same run; "at most": the ratio if they were all of it. More is printed in the table than in the JSON
object: TransformerLens' head sweep, pairs that share a prefix, a 48-layer shape, cost by starting layer and by length of the
sweep.
"""

import argparse
import contextlib
import functools
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformer_lens import patching as lens_patching
from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module
from transformers import GPT2Config, GPT2LMHeadModel

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from circuits.models import Model
from circuits.patching import patch_edges, patch_nodes
from circuits.patching.tracing.causal import KINDS
from circuits.tasks import PromptPairs, metrics
from experiments.benchmarks.forward import random_gpt2
from experiments.benchmarks.measure import Row, matrix_rate, seconds_of, show
from experiments.benchmarks.patching_work import RomeLoop, Tracing, head_by_head, heads_floor, layer_operations, random_pairs

NAMES = ("trace_states", "trace_mlp_window", "trace_attention_window", "heads", "q_edges")


def timed(
    name: str,
    ours: Callable[[], Tensor],
    reference: Callable[[int], Tensor],
    indices: list[int],
    total: int,
    device: torch.device,
    floor_seconds: float | None = None,
) -> tuple[Row, float]:
    """A row, and the largest difference on the sampled patches. Ours runs before and after the sample; the sample's time is
    scaled to all `total` patches."""
    reference(indices[0])
    kept: list[Tensor] = []
    found: list[Tensor] = []
    mine = [seconds_of(lambda: kept.append(ours()), device)]
    with contextlib.redirect_stderr(io.StringIO()):  # bars of other libraries
        theirs = seconds_of(lambda: found.extend(reference(index) for index in indices), device)
    mine.append(seconds_of(lambda: kept.append(ours()), device))
    scores = kept[-1]
    largest = max(float((scores[i].cpu().double() - r.cpu().double()).abs().max()) for i, r in zip(indices, found, strict=True))
    seconds, scaled = sum(mine) / 2, theirs / len(indices) * total
    share = None if floor_seconds is None else floor_seconds / seconds
    return Row(name, seconds, scaled, scaled / seconds, share), largest


def spread(total: int, sample: int) -> list[int]:
    """Evenly spaced indices."""
    return sorted({int((i + 0.5) * total / sample) for i in range(min(sample, total))})


def trace_rows(original: Any, model: Model, sample: int, rate: float, only: str | None) -> list[tuple[Row, float]]:
    """Tracing against ROME's loop."""
    tracing = Tracing.of(model)
    loop, rows = RomeLoop(original, tracing), []
    total = tracing.ids.shape[1] * model.n_layers
    for name, kind in zip(NAMES[:3], KINDS, strict=True):
        if only in (None, name):

            def reference(index: int, kind: Any = kind) -> Tensor:
                return loop.cell(kind, index // model.n_layers, index % model.n_layers)

            job = (functools.partial(tracing.ours, kind), reference, spread(total, sample), total)
            rows.append(timed(name, *job, model.device, tracing.floor(kind) / rate))
    return rows


def heads_row(name: str, model: Model, pairs: PromptPairs, sample: int, rate: float) -> tuple[Row, float]:
    """All heads, against one forward of the same model a head."""
    other = model.run(pairs.clean)
    every = [(layer, head) for layer in range(model.n_layers) for head in range(model.n_heads)]

    def ours() -> Tensor:
        return patch_nodes(model, pairs, metrics.logit_difference, "heads").scores

    def reference(index: int) -> Tensor:
        return head_by_head(model, pairs, other, [every[index]])[0]

    return timed(name, ours, reference, spread(len(every), sample), len(every), model.device, heads_floor(model, pairs) / rate)


def lens_heads_row(model: Model, pairs: PromptPairs, sample: int) -> tuple[Row, float]:
    """All heads, against TransformerLens' sweep."""
    bridge = model.bridge
    _, cache = bridge.run_with_cache(pairs.clean.ids, prepend_bos=False)
    every = [(layer, head) for layer in range(model.n_layers) for head in range(model.n_heads)]

    def ours() -> Tensor:
        return patch_nodes(model, pairs, metrics.logit_difference, "heads").scores.mean(dim=1)

    def reference(index: int) -> Tensor:
        import pandas as pd

        frame = pd.DataFrame({"layer": [every[index][0]], "head": [every[index][1]]})
        metric = _lens_metric(pairs)
        setter = lens_patching.layer_head_vector_patch_setter
        args = (bridge, pairs.corrupt.ids, cache, metric, setter, "z")
        return lens_patching.generic_activation_patch(*args, index_df=frame).flatten()[0]

    return timed("heads (TL)", ours, reference, spread(len(every), sample), len(every), model.device)


def _lens_metric(pairs: PromptPairs) -> Callable[[Tensor], Tensor]:
    rows = torch.arange(len(pairs), device=pairs.clean.ids.device)

    def metric(logits: Tensor) -> Tensor:
        last = logits[rows, pairs.answer_columns]
        return (last[rows, pairs.answers] - last[rows, pairs.distractors]).mean()

    return metric


def q_edges_row(model: Model, pairs: PromptPairs, rate: float) -> tuple[Row, float]:
    """One head of layer 0 to all later queries, against TransformerLens' direct path patching, timed whole."""
    bridge = model.bridge
    _, clean = bridge.run_with_cache(pairs.clean.ids, prepend_bos=False)
    _, corrupt = bridge.run_with_cache(pairs.corrupt.ids, prepend_bos=False)
    edges = [f"a0.h3->a{layer}.h{head}<q>" for layer in range(1, model.n_layers) for head in range(model.n_heads)]
    whole, keys, rest = layer_operations(model)
    tokens, attention = pairs.clean.ids.shape[1], model.weights.blocks[0].attention
    first = int((pairs.clean.ids != pairs.corrupt.ids).any(dim=0).nonzero()[0])
    after, floor = tokens - first, 0.0
    for layer in range(1, model.n_layers):
        mlp = rest - 2.0 * (attention.W_Q.numel() + attention.W_O.numel())
        own = 2.0 * 2 * model.d_head * model.d_model + mlp
        later = max(0, model.n_layers - 2 - layer) * after * whole + (after * keys + rest if layer < model.n_layers - 1 else 0)
        floor += model.n_heads * len(pairs) * (own * (after if layer < model.n_layers - 1 else 1) + later)

    def ours() -> Tensor:
        return patch_edges(model, pairs, metrics.logit_difference, edges).scores.mean(dim=1)

    found: list[Tensor] = []

    def reference(index: int) -> Tensor:
        if not found:
            args = (bridge, pairs.corrupt.ids, clean, corrupt, _lens_metric(pairs), 0, 3)
            found.append(lens_patching.get_act_patch_direct_path(*args, verbose=False)[1:].flatten())
        return found[0]

    kept = [ours()]
    _lens_metric(pairs)(bridge(pairs.corrupt.ids, prepend_bos=False))  # both sides are warm
    theirs = seconds_of(lambda: reference(0), model.device)
    seconds = seconds_of(lambda: kept.append(ours()), model.device)
    scores, expected = kept[-1], found[0].cpu().double()
    corrupt_metric = float(_lens_metric(pairs)(model.run(pairs.corrupt).logits))
    largest = float((scores - expected).abs().max() / (expected - corrupt_metric).abs().max())
    return Row("q_edges", seconds, theirs, theirs / seconds, floor / rate / seconds), largest


def deep_rows(device: torch.device, sample: int) -> list[tuple[Row, float]]:
    """Tracing on 48 narrow layers."""
    torch.manual_seed(0)
    shape = GPT2Config(n_layer=48, n_embd=128, n_head=4, vocab_size=5000)
    original = GPT2LMHeadModel(shape).eval().to(device)  # type: ignore[arg-type]
    copy = GPT2LMHeadModel(shape).eval().to(device)  # type: ignore[arg-type]
    copy.load_state_dict(original.state_dict())
    bridge = build_bridge_from_module(copy, "GPT2LMHeadModel", hf_config=copy.config, model_name="gpt2-deep")
    model = Model.from_bridge(bridge)
    rows = trace_rows(original, model, sample, matrix_rate(device, torch.float32), None)
    return [(Row(f"{row.name} 48L", row.seconds, row.reference_seconds, row.ratio, row.floor_share), gap) for row, gap in rows]


def scaling(model: Model, pairs: PromptPairs) -> list[str]:
    """Cost a patch by starting layer, and of a sweep ten times as long."""
    lines = []
    for layer in (0, 4, 8, 11):
        names = [f"a{layer}.h{head}" for head in range(model.n_heads)]
        job = lambda names=names: patch_nodes(model, pairs, metrics.logit_difference, names)  # noqa: E731
        job()
        seconds = min(seconds_of(job, model.device) for _ in range(3))
        lines.append(f"heads of layer {layer:<2}: {1000 * seconds / len(names):.2f} ms a patch")
    times = []
    for count in (100, 1000):
        names = [f"m6.n{neuron}" for neuron in range(count)]
        job = lambda names=names: patch_nodes(model, pairs[:2], metrics.logit_difference, names)  # noqa: E731
        job()
        times.append(seconds_of(job, model.device))
    lines.append(f"100 neurons of layer 6: {times[0]:.2f} s; 1,000: {times[1]:.2f} s, {times[1] / times[0]:.1f} times as much")
    return lines


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object, of the five named rows")
    parser.add_argument("--sample", type=int, default=12, help="patches of a reference that are timed")
    parser.add_argument("--only", choices=NAMES, help="one row alone")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "float64", "bfloat16"])
    options = parser.parse_args()
    device, dtype = torch.device(options.device), getattr(torch, options.dtype)
    with torch.no_grad():
        original, model = random_gpt2(device, dtype)
        rate = matrix_rate(device, dtype)
        pairs, only = random_pairs(model, 8, 16, 0), options.only
        rows = trace_rows(original, model, options.sample, rate, only)
        rows += [heads_row("heads", model, pairs, options.sample, rate)] if only in (None, "heads") else []
        rows += [q_edges_row(model, pairs, rate)] if only in (None, "q_edges") else []
        lines: list[str] = []
        if not options.json and only is None:
            rows.append(lens_heads_row(model, pairs, options.sample))
            rows.append(heads_row("heads, prefix", model, random_pairs(model, 8, 16, 8), options.sample, rate))
            rows += deep_rows(device, options.sample)
            lines = scaling(model, pairs)
    heading = f"GPT-2 small's shape, random weights, {options.dtype}, {options.device}, {torch.get_num_threads()} threads"
    show([row for row, _ in rows], as_json=options.json, heading=f"{heading}, {rate / 1e9:.0f} GFLOP/s")
    if not options.json:
        print("\n".join([f"{row.name}: largest difference from the reference {gap:.1e}" for row, gap in rows] + lines))


if __name__ == "__main__":
    main()
