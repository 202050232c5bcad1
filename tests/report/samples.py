"""Circuits and runs to make pages of: random ones of a model's shape, small ones, and texts that markup would obey."""

import dataclasses
import itertools
import json
import random
from pathlib import Path

from circuits.graph import Circuit
from circuits.report import Saved, read_saved
from tests.files import examples

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


def write_run(folder: Path) -> Path:
    """A folder with a result of every kind that a page shows in a form of its own."""
    parts = {"circuit": examples.circuit(), "verdict": examples.verdict(), "curve": examples.curve(), "trace": examples.trace()}
    parts |= {"traces": examples.traces(), "lens": examples.lens(), "head_scores": examples.head_scores()}
    parts |= {"scores": examples.edge_scores(), "prompts": examples.prompt_report(), "effects": examples.effects()}
    parts |= {"probes": examples.probes(), "use": examples.property_use(), "trees": examples.tree_probes()}
    parts |= {"lost": examples.neuron_knockout(), "explained": examples.neuron_explanation()}
    parts |= {"neurons": examples.explanations(), "module": examples.module_explanation()}
    parts |= {"words": examples.word_attributions()}
    for name, part in parts.items():
        part.save(folder / f"{name}.json")
    examples.neuron_rankings().save(folder / "rankings.safetensors")
    return folder


def saved_run(folder: Path) -> Saved:
    """The same, read."""
    return read_saved(write_run(folder))


def data_of(page: str) -> dict:
    """The data of a page."""
    text = page.partition('<script type="application/json" id="data">')[2].partition("</script>")[0]
    return json.loads(text)


def spoiled(folder: Path, texts: list[str]) -> Saved:
    """A run in which tokens, prompts, roles, evidence, metadata, model, task and names of files are such texts."""
    some = itertools.cycle(texts)
    circuit = Circuit(
        examples.GRAPH,
        dict(examples.circuit().edges),
        roles={"a0.h1": next(some), "a1.h0": next(some)},
        evidence={"a0.h1": {text: text for text in texts}, "a1.h0->logits": {"x": texts}},
        positions={"a1.h0": list(texts[:3])},
        metadata={name: next(some) for name in ("model", "task", "metric", "summary", "source", "search")},
    )
    trace = dataclasses.replace(
        examples.trace(), tokens=tuple(next(some) for _ in range(3)), prompt=next(some), answer=next(some)
    )
    lens = dataclasses.replace(examples.lens(), words={place: next(some) for place in range(3)}, model=next(some))
    columns = ("prompts", "answers", "distractors", "said")
    prompts = dataclasses.replace(examples.prompt_report(), **{name: tuple(next(some) for _ in range(3)) for name in columns})
    effects = dataclasses.replace(examples.effects(), names=tuple(f"{place}{next(some)}" for place in range(4)))
    explained = dataclasses.replace(examples.neuron_explanation(), explanation=next(some), stopped=next(some))
    held = tuple(dataclasses.replace(one, tokens=tuple(next(some) for _ in one.tokens)) for one in explained.held)
    explained = dataclasses.replace(explained, held=held)
    probes = dataclasses.replace(examples.probes(), column=next(some), model=next(some))
    words = dataclasses.replace(examples.word_attributions(), words=((next(some), next(some), next(some)), (next(some),)))
    words = dataclasses.replace(words, classes=tuple({next(some): 0, "a": 0, "b": 0})[:2])
    every = (circuit, trace, lens, prompts, effects, explained, probes, words)
    results = {f"{next(some)}{place}": one for place, one in enumerate(every)}
    return Saved(folder, results, unread={next(some): next(some)}, unfinished=(next(some),))
