"""The tools of others that `attribution.py` times on the same work: TransformerLens in this process, AutoCircuit in another."""

import dataclasses
import json
import subprocess
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformer_lens.tools.analysis import attribution_patching as lens

from circuits.attribution import attribute_edges
from circuits.models import Model
from circuits.patching.subgraphs.subgraph import run_circuits
from circuits.search.judging.curves import MIB_SIZES
from circuits.tasks import PromptPairs, metrics
from experiments.benchmarks.measure import Row, seconds_of

AUTOCIRCUIT = (
    "AutoCircuit was not timed. It needs an environment of its own: python -m venv ENV; ENV/bin/pip install "
    "auto-circuit==1.0.1 transformer-lens==2.15.4 transformers==4.51.3; then --autocircuit ENV/bin/python"
)
SCRIPT = """
import json, sys, time, torch
from auto_circuit.data import PromptDataLoader, PromptDataset
from auto_circuit.prune import run_circuits
from auto_circuit.prune_algos.mask_gradient import mask_gradient_prune_scores
from auto_circuit.types import PatchType
from auto_circuit.utils.graph_utils import patchable_model
from transformer_lens import HookedTransformer, HookedTransformerConfig

torch.set_num_threads(int(sys.argv[1]))
shape = dict(n_layers=12, d_model=768, n_ctx=1024, d_head=64, n_heads=12, d_mlp=3072, d_vocab=50257)
model = HookedTransformer(HookedTransformerConfig(**shape, act_fn="gelu_new", normalization_type="LN", seed=0, device="cpu"))
model.cfg.use_attn_result = model.cfg.use_split_qkv_input = model.cfg.use_hook_mlp_in = True
for parameter in model.parameters():
    parameter.requires_grad_(False)
generator = torch.Generator().manual_seed(0)
clean, corrupt = (list(torch.randint(0, 50257, (8, 16), generator=generator)) for _ in range(2))
answers, wrong = ([torch.tensor([token])] * 8 for token in (5, 6))
loader = PromptDataLoader(PromptDataset(clean, corrupt, answers, wrong), seq_len=None, diverge_idx=0, batch_size=8)
options = dict(factorized=True, slice_output="last_seq", separate_qkv=True, device=torch.device("cpu"))
patchable = patchable_model(model.eval(), **options)
start = time.perf_counter()
scores = mask_gradient_prune_scores(patchable, loader, None, "logit", "avg_diff", mask_val=0.0)
middle = time.perf_counter()
run_circuits(patchable, loader, [325, 3249], scores, patch_type=PatchType.TREE_PATCH)
sizes = (time.perf_counter() - middle) * 10 / 2
print(json.dumps({"edges": patchable.n_edges, "mask_gradient": middle - start, "ten_sizes": sizes}))
"""
"""AutoCircuit's mask gradient, and circuits of two sizes, scaled to ten."""
_SLOTS = {"q_input": "<q>", "k_input": "<k>", "v_input": "<v>"}


def lens_metric(pairs: PromptPairs, row: int) -> Callable[[Tensor], Tensor]:
    """The logit difference of one pair, as TransformerLens' tools take it."""
    answer, distractor, column = (int(one[row]) for one in (pairs.answers, pairs.distractors, pairs.answer_columns))
    return lambda logits: logits[0, column, answer] - logits[0, column, distractor]


def edge_name(writer: lens.Node, reader: lens.Node) -> str:
    """An edge of TransformerLens' graph by our name, whatever its position."""
    kinds = {"embed": "input", "attn_head_out": f"a{writer.layer}.h{writer.head}", "mlp_out": f"m{writer.layer}"}
    if reader.kind in _SLOTS:
        target = f"a{reader.layer}.h{reader.head}{_SLOTS[reader.kind]}"
    else:
        target = "logits" if reader.kind == "logits" else f"m{reader.layer}"
    return f"{kinds[writer.kind]}->{target}"


def swapped(pairs: PromptPairs) -> PromptPairs:
    """Clean and corrupt prompts exchanged: TransformerLens takes its gradient on the corrupt run."""
    return dataclasses.replace(pairs, clean=pairs.corrupt, corrupt=pairs.clean)


def lens_rows(model: Model, pairs: PromptPairs) -> tuple[list[Row], list[str]]:
    """Edge attribution and the faithfulness of a circuit, on one pair each and scaled to all; and how far the numbers agree."""
    rows, lines, kept = [], [], []
    bridge, one = model.bridge, pairs[:1]
    metric = lens_metric(pairs, 0)

    def attribute() -> None:
        config = lens.EdgeAttributionConfig(granularity="edge")
        kept.append(lens.attribution_patch(bridge, one.clean.ids, one.corrupt.ids, metric, config))

    ours = _best(lambda: attribute_edges(model, swapped(pairs), metrics.logit_difference, method="eap"), model)
    with torch.enable_grad():
        theirs = seconds_of(attribute, model.device) * len(pairs)
    rows.append(Row("eap (TransformerLens)", ours, theirs, theirs / ours))
    scores = attribute_edges(model, swapped(one), metrics.logit_difference, method="eap")
    found: dict[str, float] = {}
    for (writer, reader), score in kept[0].edge_scores.items():
        name = edge_name(writer, reader)
        found[name] = found.get(name, 0.0) + score
    names = list(map(str, scores.edges()))
    expected = torch.tensor([found[name] for name in names], dtype=torch.float64)
    gap = float((scores.values - expected).abs().max() / expected.abs().max())
    lines.append(f"eap and TransformerLens: largest difference on {len(names):,} edges {gap:.1e} of the largest score")
    row, line = _faithfulness(model, pairs, bridge, kept[0].edge_scores)
    return [*rows, row], [*lines, line]


def _faithfulness(model: Model, pairs: PromptPairs, bridge: Any, edges: Any) -> tuple[Row, str]:
    """One circuit of 1 % of the edges on one pair; TransformerLens' runs one more circuit for each class of edges."""
    one, scores = pairs[:1], attribute_edges(model, pairs[:1], metrics.logit_difference, method="eap")
    circuit = scores.top(len(scores) // 100)
    names = set(map(str, circuit.edges))
    kept = [(writer, reader) for writer, reader in edges if edge_name(writer, reader) in names]
    results: list[Any] = []
    metric = lens_metric(pairs, 0)
    theirs = seconds_of(
        lambda: results.append(lens.faithfulness(bridge, one.clean.ids, one.corrupt.ids, metric, kept)), model.device
    )
    result = results[0]
    runs = 1 + sum(result.edge_class_recovered[kind] != result.recovered for kind in result.edge_class_recovered)
    ours = _best(lambda: run_circuits(model, one, metrics.logit_difference, [circuit]), model)
    value = float(run_circuits(model, one, metrics.logit_difference, [circuit])[0, 0])
    mine = (value - result.corrupt_metric) / (result.full_metric - result.corrupt_metric)
    row = Row("1 circuit, 1 pair (TL)", ours, theirs / runs, theirs / runs / ours)
    return row, f"a circuit of {len(circuit)} edges: keeps {mine:.6f} here, {result.recovered:.6f} by TransformerLens"


def _best(function: Callable[[], object], model: Model, rounds: int = 3) -> float:
    function()
    return min(seconds_of(function, model.device) for _ in range(rounds))


def autocircuit_rows(python: str, model: Model, pairs: PromptPairs, threads: int) -> list[Row]:
    """AutoCircuit's mask gradient (its EAP) and circuits of two sizes, scaled to ten, in its own process on the same shape."""
    done = subprocess.run([python, "-c", SCRIPT, str(threads)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"attribution: {python} could not run AutoCircuit: {done.stderr.strip().splitlines()[-1]}")
    found = json.loads(done.stdout.strip().splitlines()[-1])
    scores = attribute_edges(model, pairs, metrics.logit_difference, method="eap")
    circuits = [scores.top(max(1, round(share * len(scores)))) for share in MIB_SIZES]
    eap = _best(lambda: attribute_edges(model, pairs, metrics.logit_difference, method="eap"), model)
    sizes = _best(lambda: run_circuits(model, pairs, metrics.logit_difference, circuits), model)
    return [
        Row("eap (AutoCircuit)", eap, found["mask_gradient"], found["mask_gradient"] / eap),
        Row("circuit_sizes (AutoCircuit)", sizes, found["ten_sizes"], found["ten_sizes"] / sizes),
    ]
