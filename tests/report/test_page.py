"""A page: its policy names the script and the style that stand in it, and no text of the data can leave the data."""

import base64
import dataclasses
import hashlib
import html.parser
import re
from pathlib import Path

import pytest
import torch

import circuits
from circuits.attribution import attribute_edges
from circuits.errors import NonFiniteError
from circuits.files.results import Result
from circuits.graph import Circuit, Node
from circuits.graph.places import places
from circuits.lenses import logit_lens
from circuits.models import load_model
from circuits.report import (
    Chart,
    Grid,
    Page,
    Paragraphs,
    Saved,
    Section,
    explanation_section,
    look_closer,
    probes_section,
    property_use_section,
    run_page,
)
from circuits.report.kinds import KINDS
from circuits.report.page import SCRIPTS, STYLES, as_json, joined
from circuits.report.sections.explained import ForetoldTexts
from circuits.tasks import PromptReport
from experiments.benchmarks.page import GPT2, random_circuit
from experiments.benchmarks.patching_work import random_pairs
from tests.files import examples
from tests.report.samples import data_of, hostile, saved_run

ROOM = Path(circuits.__file__).parent / "report"


class Tags(html.parser.HTMLParser):
    """Every start tag with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def page_of(texts: list[str]) -> str:
    rows = [(text, text) for text in texts]
    sections = [Section(text, [Paragraphs([text]), Grid((text, "b"), rows, text)], word=text) for text in texts]
    return Page(texts[0], sections, lead=texts[-1]).html()


def test_the_policy_names_the_one_script_and_the_one_style_and_nothing_else() -> None:
    page = page_of(["a"])
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert set(rules) == {"default-src", "script-src", "style-src", "base-uri", "form-action"} and "unsafe" not in policy
    for rule, pattern in (("script-src", r"<script>(.*?)</script>"), ("style-src", r"<style>(.*?)</style>")):
        (text,) = re.findall(pattern, page, re.DOTALL)
        assert rules[rule] == f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
    assert rules["default-src"] == "'none'"


def test_no_text_becomes_markup_and_every_text_comes_back() -> None:
    texts, plain = hostile(), page_of(["harmless"] * 100)
    page = page_of(texts)
    assert Tags(page).found == Tags(plain).found
    assert [section["title"] for section in data_of(page)["sections"]] == texts
    assert data_of(page)["title"] == texts[0]


def test_lone_surrogates_and_numbers() -> None:
    assert as_json({"a": "\ud800<"}) == '{"a":"\\ud800\\u003c"}'
    assert as_json([1.0, 0.1234567891, -1e-9, 2**40, True, None]) == "[1,0.123457,-1e-09,1099511627776,true,null]"
    with pytest.raises(NonFiniteError, match="nan"):
        as_json({"x": float("nan")})


def test_every_file_of_the_script_and_the_style_is_in_the_page() -> None:
    assert {file.stem for file in (ROOM / "script").iterdir()} == set(SCRIPTS)
    assert {file.stem for file in (ROOM / "style").iterdir()} == set(STYLES)


def test_the_script_makes_elements_by_two_functions_and_runs_no_text() -> None:
    script = joined("script", SCRIPTS, "js")
    markup = ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "DOMParser", "srcdoc", 'setAttribute("style"')
    for banned in (*markup, "eval(", "Function(", "import(", "fetch(", "XMLHttpRequest", "localStorage"):
        assert banned not in script, banned
    assert script.count("createElement(") == 1 and script.count("createElementNS(") == 1
    assert "</script" not in script and "<!--" not in script
    urls = set(re.findall(r"https?://[^\s\"']+", script + joined("style", STYLES, "css")))
    assert urls == {"http://www.w3.org/2000/svg"}, "a name, which nothing loads"


def every_kind() -> set[type[Result]]:
    """All results that are kept in files."""
    found, left = set(), [Result]
    while left:
        for kind in left.pop().__subclasses__():
            left.append(kind)
            if kind.__module__.startswith("circuits."):
                found.add(kind)
    return found


def test_a_page_knows_every_kind_of_saved_result() -> None:
    assert examples and {kind.result for kind in KINDS.values()} == every_kind()


def test_a_run_becomes_a_page_with_a_section_a_kind(tmp_path: Path) -> None:
    page = run_page(saved_run(tmp_path))
    titles = [section.title for section in page.sections]
    assert titles[0] == "The circuit" and titles[1] == "Verdict" and titles[-1] == "How this was made"
    assert {"Causal tracing", "Logit lens", "Head scores", "The prompts", "Patching"} <= set(titles)
    for title in ("Probes of a property", "What erasing a property costs", "Probes of trees", "Neurons ranked"):
        assert any(block.KIND == "chart" for block in of_title(page, title).blocks), title
    assert {"What is lost without neurons", "Neurons explained", "A module explained"} <= set(titles)
    assert len(page.html()) < 300_000


def of_title(page: Page, title: str) -> Section:
    """The section of that title."""
    return next(one for one in page.sections if one.title == title)


def test_charts_of_probes_show_the_numbers_and_their_intervals() -> None:
    probes = examples.probes()
    chart = next(block for block in probes_section(probes).blocks if isinstance(block, Chart))
    own = next(one for one in chart.series if one["name"] == "probe")
    assert own["y"] == probes.accuracy.tolist() and [word for _, word in chart.x_ticks] == list(probes.sites)
    for place, ends in enumerate(zip(own["low"], own["high"], strict=True)):
        assert ends == pytest.approx(probes.interval(place))
    lost = examples.property_use()
    section = property_use_section(lost)
    assert (section.standing == "good") == (lost.used is not None)
    nothing = dataclasses.replace(lost, lost=torch.full_like(lost.lost, torch.nan))
    assert not [block for block in property_use_section(nothing).blocks if isinstance(block, Chart)], "none of nothing"


def test_excerpts_show_real_beside_simulated_activations_of_every_token() -> None:
    found = examples.neuron_explanation()
    (block,) = [one for one in explanation_section(found).blocks if isinstance(one, ForetoldTexts)]
    assert [row["tokens"] for row in block.rows] == [list(one.tokens) for one in found.held]
    assert [row["simulated"] for row in block.rows] == [list(one) for one in found.simulated]
    assert [row["real"] for row in block.rows] == [[10, -10, 0]] * 2, "10 is the largest that was shown; no more is drawn"
    begun = dataclasses.replace(found, held=(), simulated=(), stopped="interrupted")
    assert not [one for one in explanation_section(begun).blocks if isinstance(one, ForetoldTexts)]


def test_long_prompts_do_not_bloat_a_page(tmp_path: Path) -> None:
    count, long = 64, "a long prompt " * 2_000
    texts, whole = (long,) * count, torch.zeros(count, dtype=torch.long)
    numbers = (whole, whole, whole, torch.ones(count), torch.ones(count), whole)
    report = PromptReport("m", "logit_difference", texts, texts, texts, texts, *numbers)
    circuit = random_circuit(GPT2, 500)
    page = run_page(Saved(tmp_path, {"circuit.json": circuit, "prompts.json": report})).html()
    assert len(page) < 3_000_000


def test_a_look_at_long_prompts_keeps_the_page_small_and_says_what_the_model_does() -> None:
    model = load_model("mini")
    heads = [f"a{layer}.h{head}" for layer in range(4) for head in range(8)]
    circuit = Circuit(model.graph(), nodes=heads)
    few, many = (look_closer(model, circuit, model.to_tokens(["The cat sat on the floor. " * n] * 8)) for n in (1, 10))
    pattern = model.run(few_tokens := model.to_tokens("The cat sat on the floor. ")).pattern(1)[0, 3]
    packed = base64.b64decode(few.of_node(Node.parse("a1.h3"))["attention"]["prompts"][0])
    width = few_tokens.ids.shape[1]
    assert len(packed) == width * (width + 1) // 2 and few.of_node(Node.parse("a1.h3"))["attention"]["rows"] == "all"
    last = torch.tensor(list(packed[-width:]))
    assert torch.equal(last, (100 * pattern[-1].double()).round().int())
    whole = sum(len(text) for node in many.nodes.values() for text in node["attention"]["prompts"])
    assert whole < 1_000_000 and len(many.prompts) == 8
    writes = few.of_node(Node.parse("a1.h3"))["writes"]
    lens = logit_lens(model, few_tokens, sites=[], nodes=["a1.h3"], top=3)
    assert [token for token, _ in writes["up"][:3]] == [lens.word(int(one)) for one in lens.top_ids[0, 0, -1]]


def test_effects_by_prompt_have_the_sign_of_the_circuit_s_own_scores() -> None:
    model = load_model("mini")
    pairs, names = random_pairs(model, 2, 6, 0), ("input->a0.h5<v>", "a0.h5->a1.h3<k>", "a1.h3->logits")
    metric = circuits.metrics.logit_difference
    values = attribute_edges(model, pairs, metric, method="eap-ig")
    circuit = Circuit(model.graph(), dict.fromkeys(names, 1.0), metadata={"method": "refine"})
    closer = look_closer(model, circuit, pairs, metric=metric)
    matrix = values.matrix()
    for edge, row, column in zip(circuit.edges, *places(model.graph(), list(circuit.edges)), strict=True):
        found = closer.of_edge(edge)
        assert found is not None
        assert sum(found) / 2 == pytest.approx(-float(matrix[row, column]), rel=1e-4, abs=1e-6)
    assert "by eap-ig" in closer.about and "positive = the edge supports" in closer.about
    ig = look_closer(model, Circuit(model.graph(), names, metadata={"method": "eap-ig"}), pairs, metric=metric)
    assert "negative = the edge supports" in ig.about
    assert ig.of_edge(edge) == pytest.approx([-value for value in closer.of_edge(edge) or ()])
