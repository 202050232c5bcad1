"""The page in a real browser: what it shows, what changes when one acts on it, and that it asks nobody for anything."""

import dataclasses
import itertools
from pathlib import Path

import pytest

from circuits.graph import Circuit
from circuits.report import Saved, run_page
from experiments.benchmarks.page import DEEP, GPT2, random_circuit
from tests.browser.conftest import Open
from tests.files import examples
from tests.report.samples import hostile, saved_run, spoiled

CIRCUIT = "document.querySelector('.explorer').circuit"

TEMPLATE = {"html", "head", "meta", "title", "style", "body", "noscript", "main", "script"}
WORDS = {"header", "nav", "section", "aside", "div", *(f"h{n}" for n in range(1, 6)), "p", "span", "strong", "a"}
LISTS = {"ul", "ol", "li", "dl", "dt", "dd"}
TABLES = {"figure", "figcaption", "details", "summary", "table", "thead", "tbody", "tr", "th", "td"}
DRAWN = {"canvas", "svg", "line", "text", "polyline", "polygon", "rect", "circle"}
OWN = TEMPLATE | WORDS | LISTS | TABLES | DRAWN | {"button", "label", "input", "select", "option"}
"""The elements that the renderer makes, and those of the template."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run with something of every kind."""
    folder = tmp_path_factory.mktemp("whole")
    run_page(saved_run(folder)).save(folder / "page.html")
    return folder / "page.html"


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of 500 edges of GPT-2 small's shape, with a curve."""
    file = tmp_path_factory.mktemp("large") / "page.html"
    circuit = random_circuit(GPT2, 500)
    curve = dataclasses.replace(examples.curve(), metadata={"scores": {"method": "eap"}})
    run_page(Saved(file, {"circuit.json": circuit, "curve.json": curve}), title="five hundred").save(file)
    return file


def test_it_opens_offline_and_asks_for_nothing(opened: Open, whole: Path) -> None:
    one = opened(whole)
    assert one.page.title() == "induction" or one.page.title()
    assert one.page.locator("h2").all_text_contents()[0].startswith("The circuit")
    assert one.page.locator("canvas").count() == 1 and one.page.locator("svg.chart").count() >= 4
    one.check()


@pytest.mark.parametrize(("width", "dark"), [(1400, False), (400, True)])
def test_it_fits_the_width(opened: Open, whole: Path, width: int, dark: bool) -> None:
    one = opened(whole, width=width, dark=dark)
    assert one.script("document.documentElement.scrollWidth") <= width
    shade = one.script("getComputedStyle(document.documentElement).backgroundColor")
    assert (shade == "rgb(16, 17, 19)") == dark
    one.page.locator(".look").click()
    assert one.script("getComputedStyle(document.documentElement).backgroundColor") == "rgb(246, 246, 244)"
    one.check()


def test_the_slider_thins_the_graph_and_says_what_remains(opened: Open, large: Path) -> None:
    one = opened(large)
    assert "500 of 500 edges" in one.page.locator(".sized").inner_text()
    before = one.page.locator("canvas").screenshot()
    slider = one.page.locator(".edges input")
    slider.focus()
    for _ in range(3):
        slider.press("PageDown")
    assert one.state("kept") == 245
    said = one.page.locator(".sized").inner_text()
    assert "245 of 500 edges, |score| ≥" in said and "faithfulness about" in said and "straight line" in said
    assert one.page.locator("canvas").screenshot() != before
    assert "245 of 500" in (slider.get_attribute("aria-valuetext") or "")
    one.check()


def test_a_click_opens_a_node_and_an_edge(opened: Open, large: Path) -> None:
    one = opened(large)
    box = one.page.locator(".stage").bounding_box()
    place, x, y = one.script(
        """(() => { const { graph, view } = document.querySelector('.explorer').circuit;
        const place = graph.nodes.findIndex((node) => node.name === 'logits'); const at = view.own.arranged.at[place];
        return [place, view.view.x + view.view.scale * at.x, view.view.y + view.view.scale * at.y]; })()"""
    )
    one.page.mouse.click(box["x"] + x, box["y"] + y)
    assert one.state("selected") == {"kind": "node", "place": place}
    panel = one.page.locator(".panel")
    assert panel.locator("h3").inner_text() == "logits" and "Edges in" in panel.inner_text()
    assert "Edges out" not in panel.inner_text(), "nothing reads the logits"
    panel.locator("td .link").first.click()
    assert one.state("selected.kind") == "edge" and "->logits" in panel.locator("h3").inner_text()
    x, y = one.script(
        """(() => { const { view, state } = document.querySelector('.explorer').circuit; const { curves } = view.own.arranged;
        const curve = curves.find((one) => one.edge === 0); const c = curve.points; const t = 0.1, s = 1 - t;
        const at = (i) => s*s*s*c[i] + 3*s*s*t*c[i+2] + 3*s*t*t*c[i+4] + t*t*t*c[i+6];
        view.zoom(3); return [view.view.x + view.view.scale * at(0), view.view.y + view.view.scale * at(1)]; })()"""
    )
    one.page.keyboard.press("Escape")
    one.script(f"{CIRCUIT}.view.pan({300 - x}, {300 - y})")
    one.page.mouse.click(box["x"] + 300, box["y"] + 300)
    assert one.state("selected.kind") == "edge"
    one.check()


def test_a_node_lists_its_edges_out_which_lead_to_the_other_node(opened: Open, large: Path) -> None:
    one = opened(large)
    place, name, count, edge = one.script(
        """(() => { const { graph } = document.querySelector('.explorer').circuit;
        const place = graph.nodes.findIndex((node) => node.kind === 'head' && node.outs.length > 1);
        const node = graph.nodes[place];
        return [place, node.name, node.outs.length, graph.edges[node.outs[0]].name]; })()"""
    )
    one.script(f"{CIRCUIT}.choose({{ kind: 'node', place: {place} }})")
    out = one.page.locator(".panel details", has_text="Edges out")
    assert out.locator("summary").inner_text() == f"Edges out ({count})"
    one.script("[...document.querySelectorAll('.panel details')].forEach((each) => { each.open = true; })")
    first = out.locator("tbody tr").first
    assert edge.startswith(f"{name}->") and first.locator("th").inner_text() in edge
    first.locator("th .link").click()
    assert one.page.locator(".panel h3").inner_text() != name and one.state("selected.kind") == "node"
    one.check()


def test_a_head_of_several_circuits_leads_to_its_panel_in_each(opened: Open, tmp_path: Path) -> None:
    file, circuit = tmp_path / "study.html", examples.circuit()
    study = dataclasses.replace(examples.study(), heads={"a0.h1": ("one", "two", "three")})
    parts = {name: Saved(tmp_path / name, {"circuit.json": circuit}) for name in ("one", "two")}
    run_page(Saved(tmp_path, {"study.json": study}, parts=parts)).save(file)
    one = opened(file)
    row = one.page.locator("table", has_text="in the circuits of").locator("tbody tr")
    assert row.locator("th").inner_text() == "a0.h1" and row.locator("button").all_inner_texts() == ["one", "two"]
    assert "three" in row.inner_text(), "a circuit that is not on the page is named all the same"
    row.locator("button").nth(1).click()
    first, second = one.page.locator(".explorer").all()
    assert second.locator(".panel h3").inner_text() == "a0.h1" and first.locator(".panel h3").count() == 0
    assert one.script("document.activeElement.className") == "close", "the keyboard is there too"
    one.check()


def test_every_bar_of_many_has_its_name_on_the_paper(opened: Open, tmp_path: Path) -> None:
    verdict, file = examples.verdict(), tmp_path / "many.html"
    needs = [dataclasses.replace(verdict.minimality[0], node=f"a{place}.h{place}", change=0.1 * place) for place in range(40)]
    run_page(Saved(tmp_path, {"verdict.json": dataclasses.replace(verdict, minimality=tuple(needs))})).save(file)
    one = opened(file)
    names = one.page.locator("svg.chart text.upright")
    assert sorted(names.all_text_contents()) == sorted(need.node for need in needs)
    boxes = [box for name in names.all() if (box := name.bounding_box())]
    chart = one.page.locator("svg.chart", has=one.page.locator("text.upright")).bounding_box()
    assert chart is not None and all(box["y"] + box["height"] <= chart["y"] + chart["height"] for box in boxes)
    edges = sorted((box["x"], box["x"] + box["width"]) for box in boxes)
    assert all(right <= left + 0.5 for (_, right), (left, _) in itertools.pairwise(edges)), "none covers another"
    one.check()


def test_on_paper_the_page_is_light_and_whole(opened: Open, whole: Path) -> None:
    one = opened(whole, dark=True)
    one.page.locator("details.grid").first.wait_for()
    one.page.emulate_media(media="print")
    one.script("window.dispatchEvent(new Event('beforeprint'))")
    assert one.script("getComputedStyle(document.querySelector('h2')).color") == "rgb(29, 29, 31)"
    assert one.script("[...document.querySelectorAll('.tools, nav, .look, .copy')].every((e) => !e.getClientRects().length)")
    folded = "[...document.querySelectorAll('details')].filter((one) => !one.open && !one.closest('.charted, .layers'))"
    assert one.script(f"{folded}.length") == 0, "what is folded is on paper too"
    wide = one.script("[...document.querySelectorAll('.scroll')].every((e) => e.scrollHeight <= e.clientHeight + 1)")
    assert wide, "nothing is cut off below"
    one.script("window.dispatchEvent(new Event('afterprint'))")
    assert one.script(f"{folded}.length") > 0, "and folded again after"
    one.check()


def test_a_search_sets_nodes_off(opened: Open, large: Path) -> None:
    one = opened(large)
    one.page.locator("input[type=search]").fill("a3.h")
    assert "nodes found" in one.page.locator(".told").inner_text() and one.state("query") == "a3.h"
    one.page.keyboard.press("Enter")
    assert one.page.locator(".panel h3").inner_text().startswith("a3.h")
    one.check()


def test_layers_are_folded_where_there_are_many_and_unfold(opened: Open, tmp_path: Path) -> None:
    file = tmp_path / "deep.html"
    run_page(Saved(file, {"circuit.json": random_circuit(DEEP, 200)})).save(file)
    one = opened(file)
    rows = f"{CIRCUIT}.view.own.arranged.rows.length"
    before = one.script(rows)
    assert one.state("folded.size") == 22
    one.page.locator(".layers summary").click()
    one.page.get_by_role("button", name="unfold all").click()
    assert one.state("folded.size") == 0 and one.script(rows) > before
    one.page.get_by_role("button", name="layer 3", exact=True).click()
    assert one.script(f"[...{CIRCUIT}.state.folded]") == [3]
    one.page.locator(".stage").focus()
    one.page.keyboard.press("End")
    one.page.keyboard.press("ArrowUp")
    layer = one.script(f"{CIRCUIT}.graph.nodes[{one.state('focus')}].layer")
    one.page.keyboard.press("f")
    assert layer in one.script(f"[...{CIRCUIT}.state.folded]")
    one.check()


def test_the_keyboard_walks_opens_and_shows_where_it_is(opened: Open, large: Path) -> None:
    one = opened(large)
    one.page.locator(".stage").focus()
    seen = {one.state("focus")}
    for key in ("ArrowUp", "ArrowRight", "ArrowRight", "ArrowUp"):
        before = one.page.locator("canvas").screenshot()
        one.page.keyboard.press(key)
        one.page.wait_for_timeout(60)
        assert one.page.locator("canvas").screenshot() != before, "the frame of the focus moves"
        seen.add(one.state("focus"))
    assert len(seen) >= 4 and one.page.locator(".told").inner_text()
    one.page.keyboard.press("Enter")
    assert one.state("selected.place") == one.state("focus")
    scale = one.script(f"{CIRCUIT}.view.view.scale")
    one.page.keyboard.press("+")
    assert one.script(f"{CIRCUIT}.view.view.scale") > scale
    one.page.keyboard.press("Escape")
    assert one.state("selected") is None
    one.check()


def test_the_table_has_the_same_edges(opened: Open, large: Path) -> None:
    one = opened(large)
    one.page.locator(".as-table").click()
    assert one.page.locator(".stage").is_hidden()
    tables = one.page.locator(".tables table")
    assert tables.nth(1).locator("tbody tr").count() == 500
    names = tables.nth(1).locator("tbody th").all_text_contents()
    assert names == one.script(f"{CIRCUIT}.graph.edges.map((edge) => edge.name)")
    header = tables.nth(0).locator("thead th").all_text_contents()
    counted = one.script(f"{CIRCUIT}.graph.nodes.map((node) => [node.name, node.ins.length, node.outs.length])")
    rows = (
        tables.nth(0).locator("tbody tr").evaluate_all("(rows) => rows.map((row) => [...row.cells].map((c) => c.textContent))")
    )
    columns = [header.index(name) for name in ("node", "edges in", "edges out")]
    assert [[row[column] for column in columns] for row in rows] == [[name, str(into), str(out)] for name, into, out in counted]
    tables.nth(1).locator("tbody .link").first.click()
    assert one.state("selected") == {"kind": "edge", "place": 0}
    one.check()


@pytest.mark.parametrize("wrong", [False, True])
def test_a_page_of_hostile_texts_holds_the_elements_of_a_page_of_harmless_ones(
    opened: Open, tmp_path: Path, wrong: bool
) -> None:
    texts = hostile() if wrong else [f"text {place}" for place in range(100)]
    file = tmp_path / ("".join(char for char in texts[8] if char not in "/\x00") + ".html")
    run_page(spoiled(tmp_path, texts), title=texts[0], commands=[(texts[1], texts[2])], missing=texts[3:6]).save(file)
    one = opened(file)
    for place in range(len(one.script(f"{CIRCUIT}.graph.nodes"))):
        one.script(f"(() => {{ const c = {CIRCUIT}; c.choose({{ kind: 'node', place: {place} }}); }})()")
    one.page.locator(".as-table").click()
    tags = one.script("[...new Set([...document.querySelectorAll('*')].map((element) => element.localName))].sort()")
    assert set(tags) <= OWN, set(tags) - OWN
    assert (
        one.script(
            "[...document.querySelectorAll('*')].flatMap((e) => e.getAttributeNames().filter((n) => n.startsWith('on')))"
        )
        == []
    )
    assert one.script("document.querySelectorAll('script').length") == 2 and one.script(
        "document.querySelectorAll('a').length"
    ) == len(
        one.script("[...document.querySelectorAll('nav a')].filter((a) => /^#section-[0-9]+$/.test(a.getAttribute('href')))")
    )
    shown = one.script("document.body.textContent")
    for text in texts[:6]:
        assert text.replace("\x00", "\x00") in shown or text == texts[0]
    assert one.page.locator("h1").evaluate("(element) => element.textContent") == texts[0]
    one.check()


def test_neurons_stand_under_their_mlp_until_it_is_opened(opened: Open, tmp_path: Path) -> None:
    graph = dataclasses.replace(examples.GRAPH, neurons=True, d_mlp=64)
    edges = [f"input->m0.n{place}" for place in range(60)] + [f"m0.n{place}->logits" for place in range(60)]
    file = tmp_path / "neurons.html"
    run_page(Saved(file, {"circuit.json": Circuit(graph, dict.fromkeys(edges, -1.0))})).save(file)
    one = opened(file)
    shown = f"{CIRCUIT}.view.own.arranged.rows.flatMap((row) => row.nodes.map((node) => {CIRCUIT}.graph.nodes[node].name))"
    assert one.script(shown) == ["logits", "m0", "input"], "60 neurons are one box"
    one.page.locator(".layers summary").click()
    one.page.get_by_role("button", name="neurons of m0").click()
    assert set(one.script(shown)) == {"logits", "input", *(f"m0.n{place}" for place in range(60))}
    one.check()
