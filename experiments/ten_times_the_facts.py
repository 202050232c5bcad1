"""Ten times the facts: does `circuits trace --facts` take ten times as long, and no more memory?

    python experiments/ten_times_the_facts.py [--facts 100] [--times 10] [--draws 2] [--model mini] [--json]

The command runs as a user's would, in a process of its own, on so many facts that the bundled model knows and then on `--times`
as many, drawn from the same list, so that both have prompts of the same lengths. What is compared is processor time, after that
of loading (a run on one fact) is taken off, by the passes that it buys: a token of each prompt in each layer is one patch.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from circuits import tasks
from circuits.cli.text import table


def facts_file(path: Path, count: int) -> Path:
    """So many facts, drawn, in ROME's layout."""
    facts = random.Random(0).sample(list(tasks.mini_facts()), count)
    rows = [
        {"known_id": number, "subject": fact.subject, "attribute": fact.attribute.strip(), "prompt": fact.prompt}
        for number, fact in enumerate(facts)
    ]
    path.write_text(json.dumps(rows))
    return path


def traced(folder: Path, count: int, options: argparse.Namespace) -> dict[str, Any]:
    """Processor seconds, peak memory and what was traced, of one run."""
    out = folder / f"out-{count}"
    words = ["trace", "--facts", str(facts_file(folder / f"{count}.json", count)), "--draws", str(options.draws), "--json"]
    command = [sys.executable, "-m", "circuits", *words, "--model", options.model, "--out", str(out)]
    with (folder / "said").open("w") as said:
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"ten_times_the_facts: circuits {' '.join(words)} does not run")
    traces = json.loads((out / "traces.json").read_text())["traces"]
    patches = sum(len(one["tokens"]) for one in traces)
    return {"facts": len(traces), "tokens": patches, "seconds": used.ru_utime + used.ru_stime, "mib": used.ru_maxrss / 1024}


def main() -> None:
    """Parse the command line, run, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini", help="bundled model, Hugging Face directory or hub name")
    parser.add_argument("--facts", type=int, default=100, help="facts of the smaller run")
    parser.add_argument("--times", type=int, default=10, help="how many times as many the larger one has")
    parser.add_argument("--draws", type=int, default=2, help="draws of noise")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        one, small, large = (
            traced(Path(folder), count, options) for count in (1, options.facts, options.facts * options.times)
        )
    ratios = {
        "tokens": large["tokens"] / small["tokens"],
        "seconds": (large["seconds"] - one["seconds"]) / (small["seconds"] - one["seconds"]),
        "memory": large["mib"] / small["mib"],
    }
    if options.json:
        print(json.dumps({"model": options.model, "one": one, "small": small, "large": large, "ratios": ratios}, indent=1))
        return
    rows = [
        (str(run["facts"]), f"{run['tokens']:,}", f"{run['seconds']:.1f} s", f"{run['mib']:,.0f} MiB")
        for run in (one, small, large)
    ]
    rows.append(("larger / smaller", f"{ratios['tokens']:.2f}", f"{ratios['seconds']:.2f}", f"{ratios['memory']:.2f}"))
    print(table(("facts traced", "tokens", "processor", "peak memory"), rows))


if __name__ == "__main__":
    main()
