"""What half precision changes: logits, the right answer's log-probability, effects of nodes, scores of edges, a circuit.

    python experiments/half_precision.py [--model DIRECTORY] [--dtype bfloat16] [--count 50] [--edges 400] [--json]

Indirect object identification, on any model (default: mini, far too small for the task). The model runs the same prompts in
float32 and in the other type, with norms, softmax and log-probabilities in float32 in both. Correlations are of float32's
numbers with the other type's: every node's effect when it is patched, every edge's score. The circuit, the strongest edges by
EAP-IG, is found in float32 on half of the pairs and judged in both types on the other half; it is found again in the other
type, for how many of its edges are the same.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from circuits.attribution import attribute_edges
from circuits.errors import CircuitsError
from circuits.models import Model, load_model
from circuits.patching import patch_nodes
from circuits.search.discover import split
from circuits.search.judging.evaluate import faithfulness
from circuits.statistics import spearman
from circuits.tasks import PromptPairs
from circuits.tasks.library.ioi import ioi
from circuits.tasks.metric import answer_logits
from circuits.tasks.metrics import log_probability, logit_difference


@torch.no_grad()
def answers(model: Model, pairs: PromptPairs) -> tuple[Tensor, Tensor, Tensor]:
    """All logits at the answer, the right answers' log-probabilities, and how far their logits lie above the wrong ones'."""
    logits = answer_logits(model.run(pairs.clean, keep="logits"), pairs).double()
    return logits, log_probability(logits, pairs), logit_difference(logits, pairs)


def beside(name: str, wide: Tensor, narrow: Tensor) -> dict[str, Any]:
    """How far the numbers in the other type are from those in float32."""
    wide, narrow = wide.double().flatten(), narrow.double().flatten()
    pearson = torch.corrcoef(torch.stack([wide, narrow]))[0, 1]
    return {
        f"{name}: correlation": float(pearson),
        f"{name}: rank correlation": spearman(wide, narrow),
        f"{name}: largest change beside the largest number": [float((wide - narrow).abs().max()), float(wide.abs().max())],
    }


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All figures, by name."""
    models = {name: load_model(options.model, dtype=getattr(torch, name)) for name in ("float32", options.dtype)}
    wide, narrow = models.values()
    prompts = ioi(wide, options.count, options.seed)
    (logits, own, gap), (other_logits, other, other_gap) = (answers(model, prompts) for model in (wide, narrow))
    change, moved, shifted = (other - own).abs(), (other_logits - logits).abs(), (other_gap - gap).abs()
    figures: dict[str, Any] = {
        "prompts": len(prompts),
        "logits: largest change, mean change, standard deviation of the logits": [
            *(float(moved.max()), float(moved.mean()), float(logits.std()))
        ],
        "logit difference: largest change, mean change, mean size": [
            *(float(shifted.max()), float(shifted.mean()), float(gap.abs().mean()))
        ],
        "largest change of the right answer's log-probability": float(change.max()),
        "mean change": float(change.mean()),
        "right answer preferred in both or in neither": float(((gap > 0) == (other_gap > 0)).double().mean()),
    }
    searched, held_out = split(ioi(wide, options.pairs, options.seed, corruption=options.corruption), options.seed)
    some = searched[: options.patched]
    figures |= beside("effects of nodes", *(patch_nodes(model, some, logit_difference).scores for model in models.values()))
    scores = {name: attribute_edges(model, searched, logit_difference) for name, model in models.items()}
    figures |= beside("scores of edges", *(one.values for one in scores.values()))
    found = {name: one.top(options.edges) for name, one in scores.items()}
    circuit = found["float32"]
    for name, model in models.items():
        effect = faithfulness(model, circuit, held_out, logit_difference, seed=options.seed)
        figures[f"faithfulness, {len(circuit)} edges, {name}"] = [effect.effect, effect.low, effect.high]
    shared = set(circuit.edges) & set(found[options.dtype].edges)
    figures[f"share of the edges found in {options.dtype} too"] = len(shared) / len(circuit)
    return figures


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini", help="bundled model, Hugging Face directory or hub name (default: mini)")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float16"], help="beside float32")
    parser.add_argument("--count", type=int, default=50, help="prompts whose answers are held side by side (default: 50)")
    parser.add_argument("--pairs", type=int, default=32, help="pairs of the circuit, half of them held out (default: 32)")
    parser.add_argument(
        "--corruption", default="swap", choices=["abc", "swap", "third"], help="what the corrupt prompts change"
    )
    parser.add_argument("--edges", type=int, default=400, help="of the circuit (default: 400)")
    parser.add_argument("--patched", type=int, default=4, help="pairs on which every node is patched (default: 4)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    try:
        figures = measure(options)
    except (CircuitsError, OSError) as error:
        print(f"half_precision: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None
    if options.json:
        print(json.dumps({"model": options.model, "dtype": options.dtype, **figures}))
        return
    for name, value in figures.items():
        values = value if isinstance(value, list) else [value]
        print(f"{name}: {', '.join(f'{one:.4g}' for one in values)}")


if __name__ == "__main__":
    main()
