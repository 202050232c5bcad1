"""Causal tracing averaged over facts that a model knows (Meng et al. 2022, figure 2 and table 1), by the role of a token.

    python experiments/average_tracing.py --model out/real/SmolLM2-135M-Instruct [--facts known_1000.json] [--count 100]
    python experiments/average_tracing.py --model MODEL --facts FILE --seconds 300     # as often as needed: it goes on

Facts are asked one after the other until so many are known: the model's most probable token after the prompt is the fact's.
Each is traced with three kinds of restoration (states, windows of MLP outputs, windows of attention outputs) and written to
`--out` at once, so that a run that was stopped goes on where it was. `--facts` takes any file that `circuits trace --facts`
does; without it the facts that come with the package are asked, drawn from all of its relations. Three draws of noise a fact:
what is averaged over is facts, and intervals are those over facts. Printed: for each kind and role the strongest layer with
its interval, the paper's figures beside them, and whether the early site at the subject's last token is there.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from circuits.cli.loading import load
from circuits.cli.output import save_figure
from circuits.cli.progress import ProgressBars
from circuits.cli.text import table
from circuits.errors import CircuitsError
from circuits.models import Model
from circuits.patching import Traces, noise_level
from circuits.patching.tracing.facts import trace_facts
from circuits.progress import Progress
from circuits.tasks import mini_facts
from circuits.tasks.sources.facts import Fact
from circuits.tasks.sources.readers import read_facts
from experiments.rome_causal_tracing import notes, rows_of

LAST = "last subject token"


def facts_of(path: Path | None, seed: int) -> list[Fact]:
    """The facts of a file in its order, or those of the package in an order drawn by the seed."""
    if path is not None:
        return list(read_facts(path))
    facts = list(mini_facts())
    random.Random(seed).shuffle(facts)
    return facts


def trace_into(folder: Path, model: Model, facts: Sequence[Fact], options: argparse.Namespace, progress: Progress) -> Traces:
    """Trace facts until `--count` known ones are found or `--seconds` are over; a file a fact, known or not, in `folder`. What
    is there already is read; raises CircuitsError where it was made with other settings."""
    window = options.window or (10 if model.n_layers >= 20 else max(1, model.n_layers // 2))
    told = {"model": model.fingerprint, "draws": options.draws, "window": window, "seed": options.seed, "facts": len(facts)}
    folder.mkdir(parents=True, exist_ok=True)
    settings = folder / "settings.json"
    if not settings.exists():
        settings.write_text(json.dumps(told))
    elif (before := json.loads(settings.read_text())) != told:
        raise CircuitsError(f"{folder} holds traces of other settings, {before}; these are {told}: give another --out")
    level = noise_level(model, [fact.subject for fact in facts])
    until = None if options.seconds is None else time.monotonic() + options.seconds
    found: list[Traces] = []
    known = 0
    for place, fact in enumerate(facts):
        file = folder / f"fact-{place:04}.json"
        if not file.exists():
            if until is not None and time.monotonic() > until:
                break
            one = trace_facts(model, [fact], noise=level, draws=options.draws, window=window, seed=options.seed)
            one.save(file)
        found.append(Traces.load(file))
        known += len(found[-1].traces)
        progress("known facts traced", known, options.count)
        if known == options.count:
            break
    return Traces(tuple(t for one in found for t in one.traces), tuple(s for one in found for s in one.skipped))


def by_role(found: Traces) -> list[tuple[str, ...]]:
    """Kind and role, the strongest layer, the effect there with half its 95 % interval, and the number of facts."""
    rows = []
    for kind in found.traces[0].restored:
        for role, (mean, half, count) in found.average_by_role(kind).items():
            layer = int(mean.argmax())
            rows.append((kind, role, str(layer), f"{float(mean[layer]):+.3f} ± {float(half[layer]):.3f}", str(count)))
    return rows


def sites(found: Traces) -> dict[str, Any]:
    """The two things that the paper says: an early site at the subject's last token, and MLPs there rather than attention.

    "Early" is the first half of the layers. `early_site`: the peak of states there with its layer and interval, and the
    largest effect of another role in these layers. `mlp_minus_attention`: at each one's strongest early layer, the mean over
    facts of the difference with half its interval."""
    layers = found.traces[0].effects("states").shape[1]
    early = slice(0, max(1, layers // 2))
    states = found.average_by_role("states")
    mean, half, _ = states[LAST]
    layer = int(mean[early].argmax())
    others = {role: float(values[early].max()) for role, (values, _, _) in states.items() if role != LAST}
    rival = max(others, key=lambda role: others[role])
    best = {kind: int(found.average_by_role(kind)[LAST][0][early].argmax()) for kind in ("mlp", "attention")}
    gaps = [t.by_role("mlp")[LAST][best["mlp"]] - t.by_role("attention")[LAST][best["attention"]] for t in found.traces]
    spread = float(sum((float(gap) - float(sum(gaps)) / len(gaps)) ** 2 for gap in gaps) / max(1, len(gaps) - 1)) ** 0.5
    return {
        "early_site": {"layer": layer, "effect": float(mean[layer]), "half": float(half[layer])},
        "next_role": {"role": rival, "effect": others[rival]},
        "mlp_minus_attention": {
            "layers": best,
            "effect": float(sum(gaps)) / len(gaps),
            "half": 1.96 * spread / len(gaps) ** 0.5,
        },
    }


def said(found: Traces) -> list[str]:
    """The same in words."""
    seen = sites(found)
    site, rival, gap = seen["early_site"], seen["next_role"], seen["mlp_minus_attention"]
    is_there = site["effect"] - site["half"] > rival["effect"]
    more = "more than" if gap["effect"] - gap["half"] > 0 else "less than" if gap["effect"] + gap["half"] < 0 else "as much as"
    centres = " and ".join(str(gap["layers"][kind]) for kind in ("mlp", "attention"))
    return [
        f"{'An' if is_there else 'No certain'} early site at the last subject token: its state brings back "
        f"{site['effect']:.3f} ± {site['half']:.3f} at layer {site['layer']}; "
        f"of the others the {rival['role']} most, {rival['effect']:.3f}.",
        f"At the last subject token MLP windows bring back {more} attention windows, by {gap['effect']:+.3f} ± "
        f"{gap['half']:.3f} (centres {centres}).",
    ]


def show(model: Model, found: Traces) -> None:
    """Print tables and words."""
    print(found.summary)
    print(table(("kind", "role", "layer", "indirect effect", "facts"), by_role(found)))
    print()
    rows = []
    for row in rows_of(found):
        half = "" if row.half is None else f" ± {row.half:.1%}"
        layers = ["" if layer is None else str(layer) for layer in (row.paper_layer, row.layer)]
        rows.append((row.what, f"{row.paper:.1%}", layers[0], f"{row.measured:.1%}{half}", layers[1]))
    print(table(("figure", "paper (GPT-2 XL)", "layer", "here", "layer"), rows))
    print()
    print("\n".join([*said(found), *notes(model, found)]))


def main() -> None:
    """Parse the command line, trace, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini", help="bundled model, Hugging Face directory or hub name")
    parser.add_argument("--facts", type=Path, help="a file of facts, such as ROME's known_1000.json")
    parser.add_argument("--count", type=int, default=100, help="known facts (default: 100)")
    parser.add_argument("--draws", type=int, default=3, help="draws of noise a fact")
    parser.add_argument("--window", type=int, help="layers (default: 10, or half of fewer than 20)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, help="stop after so long; another run goes on")
    parser.add_argument("--out", type=Path, default=Path("out/average-tracing"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    try:
        model = load(options.model, device=options.device, dtype="float32")
        with ProgressBars() as progress:
            found = trace_into(options.out / "facts", model, facts_of(options.facts, options.seed), options, progress)
        if not found.traces:
            raise CircuitsError(f"{model.name} knows none of {len(found.skipped)} facts")
    except (CircuitsError, OSError) as error:
        raise SystemExit(f"average_tracing: {error}") from None
    found.save(options.out / "traces.json")
    found.to_dataframe().to_csv(options.out / "roles.csv", index=False)
    save_figure(found.plot(), options.out / "roles.png")
    if options.json:
        print(json.dumps({"facts": len(found.traces), "skipped": len(found.skipped), **sites(found)}))
    else:
        show(model, found)


if __name__ == "__main__":
    main()
