"""How heavy a page is and how fluid: size, first paint, frames a second while the graph is dragged and thinned.

    python experiments/benchmarks/page.py [--json] [--only gpt2] [--page report.html] [--chromium /usr/bin/chromium]

Random circuits with random scores, or with `--page` the page of a real run, as `circuits report` wrote it, opened by the
installed chromium, headless and without a GPU, at 1400 by 900 pixels:
`gpt2`: 500 edges of GPT-2 small's shape, with what a model of that shape with random weights says of its nodes and edges on
8 of 64 prompts; `deep`: 500 edges of SmolLM2-135M's shape (30 layers); `large`: 2,000 edges of GPT-2 small's. First paint: the
browser's own first contentful paint, after navigation began. Open: until the graph itself was painted and the page took input.
Frames: while the mouse drags the graph, with every layer unfolded, and while the slider of edges moves, two seconds each; the
screen's 60 are the most there can be.
"""

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import itertools

from circuits.graph import Circuit, Graph
from circuits.report import Closer, Page, Saved, look_closer, run_page
from circuits.tasks.metrics import logit_difference
from experiments.benchmarks.forward import random_gpt2
from experiments.benchmarks.patching_work import random_pairs

GPT2 = Graph(n_layers=12, n_heads=12, n_key_value_heads=12, d_mlp=3072)
DEEP = Graph(n_layers=30, n_heads=9, n_key_value_heads=3, d_mlp=1536)
SHAPES = {"gpt2": (GPT2, 500), "deep": (DEEP, 500), "large": (GPT2, 2_000)}
"""Name → graph and edges."""
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SECONDS = 2
_DRAG = """async (seconds) => {
  const { view } = document.querySelector('.explorer').circuit, box = view.stage.getBoundingClientRect();
  const before = view.view.x;
  const found = await timesOf(seconds, (at) => {
    const [x, y] = [box.left + 420 + 160 * Math.sin(at / 9), box.top + 300 + 120 * Math.cos(at / 7)];
    view.stage.dispatchEvent(new PointerEvent('pointermove', { pointerId: 1, clientX: x, clientY: y, bubbles: true }));
  });
  if (view.view.x === before) throw new Error('the graph was not dragged');
  return found;
}"""
_SLIDE = """async (seconds) => {
  const slider = document.querySelector('.edges input');
  return await timesOf(seconds, (at) => {
    slider.value = String(Math.round(500 + 500 * Math.sin(at / 20)));
    slider.dispatchEvent(new Event('input', { bubbles: true }));
  });
}"""
_OPEN = """() => new Promise((done) => requestAnimationFrame(() => setTimeout(() => done(performance.now()), 0)))"""
_PAINTED = """() => new Promise((done) => new PerformanceObserver((list) => {
  const found = list.getEntries().find((entry) => entry.name === 'first-contentful-paint');
  if (found) done(found.startTime);
}).observe({ type: 'paint', buffered: true }))"""
_FRAMES = """() => { window.timesOf = (seconds, act) => new Promise((done) => {
  const times = [];
  const step = (now) => {
    times.push(now);
    if (now - times[0] > 1000 * seconds) done(times);
    else { act(times.length); requestAnimationFrame(step); }
  };
  requestAnimationFrame(step);
}); }"""


def random_circuit(graph: Graph, edges: int, *, seed: int = 0) -> Circuit:
    """So many random edges with random scores of either sign, a few of them large."""
    draw = random.Random(seed)
    chosen = draw.sample([str(edge) for edge in graph.edges()], edges)
    scores = {name: draw.gauss(0, 1) ** 3 for name in chosen}
    return Circuit(graph, scores, metadata={"method": "eap", "model": "random", "metric": "logit_difference"})


def page_of(name: str) -> Page:
    """The page of a shape."""
    graph, edges = SHAPES[name]
    circuit, closer = random_circuit(graph, edges), None
    if name == "gpt2":
        closer = _closer(circuit)
    return run_page(Saved(Path(name), {"circuit.json": circuit}), closer=closer, title=name)


def _closer(circuit: Circuit) -> Closer:
    """What a model with random weights says of the circuit."""
    _, model = random_gpt2(torch.device("cpu"), torch.float32)
    return look_closer(model, circuit, random_pairs(model, 64, 24, 4), metric=logit_difference)


def measured(file: Path, chromium: str) -> dict[str, float]:
    """Milliseconds to the first paint and until the graph is there; edges of the page's first circuit; frames a second, and the
    slowest frame in twenty in milliseconds, while that is moved."""
    from playwright.sync_api import sync_playwright

    # The sandbox of chromium refuses to run as root.
    arguments = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=[*arguments, "--disable-gpu"])
        page = browser.new_context(viewport={"width": 1400, "height": 900}, offline=True).new_page()
        page.goto("about:blank")
        page.goto(file.resolve().as_uri())
        found = {"open_ms": page.evaluate(_OPEN), "first_paint_ms": page.evaluate(_PAINTED)}
        found["edges"] = page.evaluate("document.querySelector('.explorer').circuit.graph.edges.length")
        page.evaluate(_FRAMES)
        page.evaluate("document.querySelector('.layers').open = true")
        page.get_by_role("button", name="unfold all").click()
        page.evaluate("scrollTo(0, 0)")
        box = page.locator(".stage").bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + 420, box["y"] + 300)
        page.mouse.down()
        for what, act in (("drag", _DRAG), ("slider", _SLIDE)):
            times = page.evaluate(act, SECONDS)
            gaps = sorted(after - before for before, after in itertools.pairwise(times))
            found |= {
                f"{what}_fps": 1000 * len(gaps) / (times[-1] - times[0]),
                f"{what}_slow_ms": gaps[int(0.95 * (len(gaps) - 1))],
            }
            page.mouse.up()
        browser.close()
    return found


def table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """The figures as a table."""
    lines = ["shape     edges   MB     first paint   open       drag: fps, slow frame   slider: fps, slow frame"]
    for name, row in rows.items():
        times = f"{row['first_paint_ms']:8.0f} ms {row['open_ms']:8.0f} ms"
        moves = "".join(f"   {row[f'{what}_fps']:8.1f} {row[f'{what}_slow_ms']:8.1f} ms" for what in ("drag", "slider"))
        lines.append(f"{name:8} {row['edges']:6,} {row['megabytes']:5.2f} {times}{moves}")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--only", choices=SHAPES, help="one of the three")
    which.add_argument("--page", type=Path, help="a page that circuits report wrote")
    parser.add_argument(
        "--chromium", default=next(filter(None, map(shutil.which, BROWSERS)), None), help="the browser's program"
    )
    parser.add_argument("--keep", type=Path, help="a folder in which the pages are kept")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if options.chromium is None:
        parser.error("no chromium was found: install one, or name its program with --chromium")
    rows = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for name in [options.only] if options.only else ["real"] if options.page else SHAPES:
            file = options.page or folder / f"{name}.html"
            if not options.page:
                page_of(name).save(file)
            rows[name] = {"megabytes": file.stat().st_size / 1e6, **measured(file, options.chromium)}
    print(json.dumps(rows, indent=2) if options.json else table(rows))


if __name__ == "__main__":
    main()
