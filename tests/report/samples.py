"""Circuits and runs to make pages of: random ones of a model's shape, small ones, and texts that markup would obey."""

import json
import random
from pathlib import Path

import torch

from circuits.graph import Circuit, Graph
from circuits.report import Saved, read_saved
from tests.files import examples

GPT2 = Graph(n_layers=12, n_heads=12, n_key_value_heads=12, d_mlp=3072)
"""GPT-2 small's shape."""
DEEP = Graph(n_layers=30, n_heads=9, n_key_value_heads=3, d_mlp=1536)
"""SmolLM2-135M's."""
PIECES = (
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(1)</script>",
    "<!--",
    "-->",
    "]]><![CDATA[",
    "\u2028",
    "\u2029",
    "{{constructor.constructor('x')()}}",
    "${alert(1)}",
    "\u202e\u2066rtl",
    "\x00",
    "\r\n",
    "'\"`",
    "&lt;b&gt;&amp;",
    "<svg/onload=x>",
    "javascript:alert(1)",
    "</title><b>",
    "</style><i>",
    "\ufeff\ufffe",
    "<a href='data:text/html,x'>",
    "\\u003cb\\u003e",
    "*/alert(1)//",
    "__proto__",
    "constructor",
)


def hostile(count: int = 100) -> list[str]:
    """Texts that end markup, scripts, comments, strings or templates where they are not kept apart from them."""
    draw = random.Random(7)
    made = [*PIECES]
    while len(made) < count:
        made.append("".join(draw.choice(PIECES) for _ in range(draw.randint(2, 4))))
    return made


def random_circuit(graph: Graph, edges: int, *, seed: int = 0, **known) -> Circuit:
    """So many random edges with random scores of either sign."""
    draw = random.Random(seed)
    chosen = draw.sample([str(edge) for edge in graph.edges()], edges)
    scores = {name: draw.gauss(0, 1) ** 3 for name in chosen}
    return Circuit(graph, scores, metadata={"method": "eap", "model": "random", "metric": "logit_difference"}, **known)


def write_run(folder: Path) -> Path:
    """A folder with a result of every kind that a page shows in a form of its own."""
    parts = {"circuit": examples.circuit(), "verdict": examples.verdict(), "curve": examples.curve(), "trace": examples.trace()}
    parts |= {"traces": examples.traces(), "lens": examples.lens(), "head_scores": examples.head_scores()}
    parts |= {"scores": examples.edge_scores(), "prompts": examples.prompt_report(), "effects": examples.effects()}
    for name, part in parts.items():
        part.save(folder / f"{name}.json")
    return folder


def saved_run(folder: Path) -> Saved:
    """The same, read."""
    return read_saved(write_run(folder))


def data_of(page: str) -> dict:
    """The data of a page."""
    text = page.partition('<script type="application/json" id="data">')[2].partition("</script>")[0]
    return json.loads(text)


def pattern(width: int) -> torch.Tensor:
    """A causal pattern whose rows sum to 1."""
    values = torch.rand(width, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64).tril()
    return values / values.sum(dim=1, keepdim=True)
