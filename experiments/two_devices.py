"""Whether a model on two devices computes what it computes on one, without a GPU.

    python experiments/two_devices.py [--model NAME] [--count 2] [--only NAME] [--json]

Compiles a device kind of two devices (`two_devices.cpp`; a C++ compiler and half a minute): their memory is the processor's and
its kernels compute, but an operation that is handed tensors of both is refused, as on GPUs. Each job then runs on one of them
and on both, the first layers on one and the last on the other: the largest difference of any number of the results, and how
often a tensor was moved from one to the other, are printed.
"""

import argparse
import dataclasses
import json
import sys
import tempfile
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.backend_registration import rename_privateuse1_backend

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import circuits
from circuits.errors import CircuitsError
from circuits.models import Model
from circuits.models.devices import spread
from circuits.tasks import PromptPairs
from circuits.tasks.library.induction import induction
from circuits.tasks.metrics import logit_difference

Job = Callable[[Model, PromptPairs], Any]
KIND = "apart"

JOBS: dict[str, Job] = {
    "run": lambda model, pairs: model.run(["The cat sat on the", "A dog"]),
    "attribute_edges eap": lambda model, pairs: circuits.attribute_edges(model, pairs, logit_difference, method="eap"),
    "attribute_edges eap-ig": lambda model, pairs: circuits.attribute_edges(model, pairs, logit_difference, steps=3),
    "attribute_edges relp": lambda model, pairs: circuits.attribute_edges(model, pairs, logit_difference, method="relp"),
    "attribute_edges neurons": lambda model, pairs: (
        circuits.attribute_edges(model, pairs, logit_difference, method="eap", neurons=True).values
    ),
    "attribute_nodes": lambda model, pairs: circuits.attribute_nodes(model, pairs, logit_difference, steps=3),
    "patch_nodes": lambda model, pairs: circuits.patch_nodes(model, pairs, logit_difference),
    "patch_nodes attention": lambda model, pairs: circuits.patch_nodes(model, pairs, logit_difference, "heads"),
    "patch_edges": lambda model, pairs: circuits.patch_edges(
        model, pairs, logit_difference, ["a0.h1->a2.h0<k>", "m0->a3.h2<q>", "m1->logits", "a1.h0->m3"]
    ),
    "patch_path": lambda model, pairs: circuits.patch_path(model, pairs, logit_difference, ["a0.h1", "a2.h0<k>", "logits"]),
    "causal_trace": lambda model, pairs: circuits.causal_trace(
        model, "The cat sat on the mat", subject="The cat", draws=2, window=2, noise=0.1
    ),
    "attention_knockout": lambda model, pairs: circuits.attention_knockout(
        model, "The cat sat on the mat", subject="The cat", window=2
    ),
    "ablate mean": lambda model, pairs: circuits.ablate(model, pairs, logit_difference, ["a0.h0", "m3"], kind="mean"),
    "discover eap-ig": lambda model, pairs: circuits.discover(model, pairs, logit_difference, edges=30),
    "discover acdc": lambda model, pairs: circuits.acdc(model, pairs, logit_difference, threshold=0.5),
    "discover prune": lambda model, pairs: circuits.prune_edges(model, pairs, logit_difference, edges=30, steps=3),
    "logit_lens": lambda model, pairs: circuits.logit_lens(model, "The cat sat on the", nodes=["a1.h2", "m3", "m3.n5"]),
    "logits": lambda model, pairs: circuits.logits(model, pairs),
    "triggers": lambda model, pairs: circuits.find_triggers(model, "The cat sat on the mat. " * 4, neurons=["m0.n1", "m3.n5"]),
    "neuron": lambda model, pairs: circuits.neuron(model, "m3.n5", "The cat sat on the mat. " * 4),
    "read_values": lambda model, pairs: circuits.read_values(model, ["m0.n1", "m3.n5"]),
    "score_heads": lambda model, pairs: circuits.score_heads(model, sequences=2, length=8, copies=2),
    "composition": lambda model, pairs: circuits.heads.composition_scores(model),
    "flow": lambda model, pairs: circuits.heads.flow(model.run("The cat sat on the")),
    "rollout": lambda model, pairs: circuits.heads.norm_weighted(model.run("The cat sat on the")),
}


def devices() -> Callable[[], int]:
    """Two devices, `apart:0` and `apart:1`, from here on; gives the function that counts moves."""
    from torch.utils.cpp_extension import load

    rename_privateuse1_backend(KIND)
    module: Any = types.ModuleType(KIND)
    module.is_available, module.device_count, module.current_device = lambda: True, lambda: 2, lambda: 0
    module._is_in_bad_fork, module.get_amp_supported_dtype = lambda: False, list
    torch._register_device_module(KIND, module)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(__file__).with_suffix(".cpp")
        made: Any = load("two_devices", [str(source)], extra_cflags=["-O0"], build_directory=folder)
    return made.moves


def numbers(value: Any) -> Iterator[Tensor]:
    """All numbers of a result, in the order of its fields."""
    if isinstance(value, Tensor):
        yield value.detach().cpu().double()
    elif isinstance(value, float | int):
        yield torch.tensor(float(value), dtype=torch.float64)
    elif isinstance(value, circuits.Run):
        yield from numbers([value.logits, value.residuals, value.q, value.k, value.v, value.z, value.neurons])
    elif dataclasses.is_dataclass(value):
        yield from numbers([getattr(value, field.name) for field in dataclasses.fields(value) if field.compare])
    elif isinstance(value, dict):
        yield from numbers(list(value.values()))
    elif isinstance(value, list | tuple):
        for one in value:
            yield from numbers(one)


def difference(one: Any, two: Any) -> float:
    """The largest difference of two results' numbers; NaN counts as itself."""
    pairs = list(zip(numbers(one), numbers(two), strict=True))
    return max((float((a.nan_to_num() - b.nan_to_num()).abs().max()) for a, b in pairs if a.numel()), default=float("nan"))


def measure(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A row a job."""
    moves = devices()
    model = circuits.load_model(options.model)
    homes = [[f"{KIND}:0", f"{KIND}:{last}"] for last in (0, 1)]
    single, double = (dataclasses.replace(model, weights=spread(model.weights, home)) for home in homes)
    pairs = [induction(one, options.count, 0) for one in (single, double)]
    for name, job in JOBS.items():
        if options.only and options.only not in name:
            continue
        try:
            before = moves()
            one = job(single, pairs[0])
            alone, before = moves() - before, moves()
            two = job(double, pairs[1])
            yield {"job": name, "difference": difference(one, two), "moves": moves() - before - alone}
        except (RuntimeError, CircuitsError) as error:
            if options.raising:
                raise
            yield {"job": name, "failed": " ".join(str(error).split())[:300]}


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini", help="bundled model, Hugging Face directory or hub name (default: mini)")
    parser.add_argument("--count", type=int, default=2, help="prompt pairs (default: 2)")
    parser.add_argument("--only", default="", help="jobs whose name holds this")
    parser.add_argument("--raising", action="store_true", help="stop at the first error, with its traceback")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    options = parser.parse_args()
    failed = False
    for row in measure(options):
        failed |= "failed" in row or not row["difference"] <= 1e-5
        found = row.get("failed") or f"{row['difference']:.2g}, {row['moves']} moves between devices"
        print(json.dumps(row) if options.json else f"{row['job']:24} {found}", flush=True)
    raise SystemExit(int(failed))


if __name__ == "__main__":
    main()
