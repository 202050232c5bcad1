"""What `command_costs.py` runs: each command as a user types it, what its own tokens are, and a process that notes the times.

    python experiments/command_costs_jobs.py RECORD NAME MODEL FOLDER [--threads 2]
    python experiments/command_costs_jobs.py --prepare MODEL FOLDER

The first runs one command with its files in FOLDER, and writes to RECORD when it loaded its model, when it ended, how much
memory it took, and the shapes of its own tokens; the second writes the circuits that some commands are about.
"""

import argparse
import dataclasses
import json
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

TEXT = Path(__file__).resolve().parents[1] / "docs" / "howto.md"
"""A text for those commands that need one."""
PROMPT = "The capital of France is"
PAIRS = 32
SHARE = 0.02
"""Of all edges, what the circuits have that are judged."""
Shapes = list[tuple[int, ...]]
"""Prompts and their width in tokens, padding included: how long a plain forward takes depends on nothing else."""


@dataclasses.dataclass(frozen=True)
class Job:
    """One command. In `words`, CIRCUIT and OTHER stand for circuit files, OUT for the folder of its files, TEXT for a text;
    `about`: what its own tokens are; `tokens`: their shapes, for a model; `out`: what --out is given, below the folder."""

    words: tuple[str, ...]
    about: str
    tokens: Callable[[Any], Shapes] | None = None
    out: str | None = ""


def repeated(count: int, *, length: int = 25, copies: int = 2) -> Callable[[Any], Shapes]:
    """Random tokens said several times."""

    def shapes(model: Any) -> Shapes:
        """Of a model."""
        from circuits.tasks import repeated_tokens

        return [tuple(repeated_tokens(model, count=count, length=length, copies=copies)[0].ids.shape)]

    return shapes


def pairs(name: str, count: int, seed: int = 0) -> Callable[[Any], Shapes]:
    """Clean and corrupt prompts of a task."""

    def shapes(model: Any) -> Shapes:
        """Of a model."""
        from circuits.tasks import task

        found = task(name).draw(model, count, seed).pairs
        return [tuple(found.clean.ids.shape), tuple(found.corrupt.ids.shape)]

    return shapes


def fact_pairs(model: Any) -> Shapes:
    """Pairs of facts, as `circuits recall` makes them."""
    from circuits.tasks import fact_pairs, mini_facts

    found = fact_pairs(model, mini_facts(), count=PAIRS, seed=0)
    return [tuple(found.clean.ids.shape), tuple(found.corrupt.ids.shape)]


def facts(model: Any) -> Shapes:
    """All facts that come with the package, each by itself."""
    from circuits.tasks import mini_facts

    widths = [model.to_tokens(fact.prompt).ids.shape[1] for fact in mini_facts()]
    return [(widths.count(width), width) for width in sorted(set(widths))]


def prompt(rows: int = 1) -> Callable[[Any], Shapes]:
    """One prompt, so many times."""
    return lambda model: [(rows, model.to_tokens(PROMPT).ids.shape[1])]


def written(count: int, width: int = 64) -> Callable[[Any], Shapes]:
    """Text that the model writes itself."""
    return lambda model: [(count, min(width, model.max_positions or width))]


JOBS = {
    "induction": Job(("induction",), "32 sequences of 2 × 25 random tokens", repeated(32)),
    "heads": Job(("heads",), "10 sequences of 4 × 25 random tokens", repeated(10, copies=4), "heads.csv"),
    "trace": Job(("trace",), "one prompt, clean and with 10 draws of noise", prompt(11)),
    "recall": Job(("recall",), "32 pairs of facts, clean and corrupt", fact_pairs),
    "patch": Job(("patch", "--task", "ioi"), "32 IOI pairs, clean and corrupt", pairs("ioi", PAIRS)),
    "ablate": Job(("ablate", "heads", "--each", "--task", "ioi"), "32 IOI pairs, clean and corrupt", pairs("ioi", PAIRS)),
    "discover": Job(("discover", "--task", "ioi", "--count", "32"), "32 IOI pairs, clean and corrupt", pairs("ioi", 32)),
    "evaluate": Job(("evaluate", "CIRCUIT", "--task", "ioi"), "64 IOI pairs, clean and corrupt", pairs("ioi", 64, 1)),
    "lens": Job(("lens", PROMPT), "one prompt", prompt()),
    "lens train": Job(
        ("lens", "train", "OUT/tuned.safetensors", "--text", "TEXT", "--steps", "10"),
        "10 steps of 8 prompts of 128 tokens",
        lambda model: [(80, 128)],
    ),
    "logits": Job(("logits", PROMPT), "one prompt", prompt()),
    "neuron": Job(("neuron", "m10.n100"), "64 prompts of 64 tokens, which the model writes", written(64)),
    "neurons": Job(("neuron",), "64 prompts of 64 tokens, which the model writes", written(64)),
    "tables": Job(("tables",), "every token as a prompt by itself", lambda model: [(model.d_vocab, 1)]),
    "tables terms": Job(("tables", "terms"), "32 prompts of 64 tokens, which the model writes", written(32)),
    "tables layers": Job(("tables", "layers"), "32 prompts of 64 tokens, which the model writes", written(32)),
    "tables compress": Job(
        ("tables", "compress", "--head", "a0.h0,a18.h6"), "32 prompts of 64 tokens, which the model writes", written(32)
    ),
    "attention": Job(("attention", PROMPT, "--heads", "a1.h0"), "one prompt", prompt()),
    "behaviour": Job(("behaviour",), "all facts that come with the package", facts, "behaviour.csv"),
    "compare": Job(("compare", "CIRCUIT", "OTHER"), "no model"),
    "export": Job(("export", "CIRCUIT", "--to", "graphml"), "no model", None, "circuit.graphml"),
    "info": Job(("info", "CIRCUIT"), "no model", None, None),
}


def command_line(job: Job, model: str, folder: Path) -> list[str]:
    """The words of the command; those without a model name none."""
    places = {"CIRCUIT": folder / "circuit.json", "OTHER": folder / "other.json", "TEXT": TEXT}
    out = folder / "files"
    words = [str(places.get(word, word)).replace("OUT/", f"{out}/") for word in job.words]
    words += [] if job.about == "no model" else ["--model", model]
    return words if job.out is None else [*words, "--out", str(out / job.out if job.out else out)]


def prepare(model: str, folder: Path, share: float) -> None:
    """Two circuits: the strongest edges by EAP, on two draws of pairs."""
    from circuits import attribute_edges, load_model
    from circuits.tasks import task
    from circuits.tasks.metrics import logit_difference

    loaded = load_model(model)
    size = max(1, round(share * loaded.graph().edge_count))
    for seed, name in enumerate(("circuit.json", "other.json")):
        drawn = task("ioi").draw(loaded, 8, seed).pairs
        attribute_edges(loaded, drawn, logit_difference, method="eap").top(size).save(folder / name)


def peak() -> int:
    """Bytes that this process has taken at most. Linux counts in `ru_maxrss` what its parent held when it began."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    for line in lines:
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def run(job: Job, words: Sequence[str]) -> dict[str, Any]:
    """Run a command in this process as its program does. `circuits.load_model` is called as ever, and the time noted."""
    import circuits

    record: dict[str, Any] = {"imported": time.monotonic()}
    loaded, plain = list[Any](), circuits.load_model

    def noted(*args: Any, **options: Any) -> Any:
        """Load a model, and note when that began and ended."""
        record["load begins"], record["peak before"] = time.monotonic(), peak()
        loaded.append(plain(*args, **options))
        record["load ends"], record["peak loaded"], record["cpu"] = time.monotonic(), peak(), time.process_time()
        return loaded[0]

    setattr(circuits, "load_model", noted)  # noqa: B010
    from circuits.cli import app

    try:
        app(list(words))
        record["status"] = 0
    except SystemExit as stop:
        record["status"] = stop.code if isinstance(stop.code, int) else int(bool(stop.code))
    sys.stdout.flush()
    record |= {"ends": time.monotonic(), "peak": peak(), "cpu": time.process_time() - record.get("cpu", 0.0)}
    if loaded:
        record["weights"] = loaded[0].weights.nbytes
        record["tokens"] = [] if job.tokens is None else job.tokens(loaded[0])
    return record


def main() -> None:
    """Parse the command line, run one command, write what was noted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepare", action="store_true", help="write circuits instead")
    parser.add_argument("--share", type=float, default=SHARE, help="how many of all edges those have")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("words", nargs="+", metavar="RECORD NAME MODEL FOLDER")
    options = parser.parse_args()
    import torch

    torch.set_num_threads(options.threads)
    if options.prepare:
        prepare(options.words[0], Path(options.words[1]), options.share)
        return
    file, name, model, folder = options.words
    record = run(JOBS[name], command_line(JOBS[name], model, Path(folder)))
    Path(file).write_text(json.dumps(record))
    sys.exit(record["status"])


if __name__ == "__main__":
    main()
