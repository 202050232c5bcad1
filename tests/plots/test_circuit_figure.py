"""The drawn circuit: every part is there, apart from the others, and inside the picture."""

import itertools
import random

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, PathPatch
from matplotlib.transforms import Bbox

from circuits.errors import GraphError
from circuits.graph import Circuit, Graph, Reader
from circuits.plots import circuit_figure
from circuits.plots.graphs.circuit import MOST_EDGES, MOST_NODES
from circuits.plots.graphs.layout import BOX_HEIGHT, BOX_WIDTH, lay_out
from tests.graph.samples import random_circuit

MINI = Graph(n_layers=4, n_heads=8, n_key_value_heads=8, d_mlp=1024)
GPT2 = Graph(n_layers=12, n_heads=12, n_key_value_heads=12, d_mlp=3072)
GROUPED = Graph(n_layers=4, n_heads=8, n_key_value_heads=2, d_mlp=8)


def induction_like(graph: Graph, writers: int, readers: int) -> Circuit:
    feeding, heads = [f"a0.h{i}" for i in range(writers)], [f"a2.h{i}" for i in range(readers)]
    rng = random.Random(0)
    edges: dict[str, float | None] = {f"input->{graph.reader_of(head, 'q')}": None for head in [*feeding, *heads]}
    edges |= {f"{a}->{graph.reader_of(b, 'k')}": rng.gauss(0, 1) for a in feeding for b in heads}
    edges |= {f"{head}->logits": rng.uniform(0, 2) for head in heads}
    roles = dict.fromkeys(feeding, "previous token") | dict.fromkeys(heads, "induction")
    return Circuit(graph, edges, dict.fromkeys(heads, 1.25), roles=roles, metadata={"task": "induction", "model": "mini"})


def sixty_edges() -> Circuit:
    edges = random.Random(1).sample(list(GPT2.edges()), 60)
    return Circuit(GPT2, {edge: random.Random(str(edge)).gauss(0, 1) for edge in edges})


CIRCUITS = {
    "empty": Circuit(MINI),
    "one head": Circuit(MINI, [], ["a0.h1"]),
    "small": induction_like(MINI, 1, 1),
    "mini": induction_like(MINI, 4, 8),
    "thirty heads of one layer": Circuit(
        Graph(n_layers=1, n_heads=30, n_key_value_heads=30, d_mlp=0), [f"a0.h{i}->logits" for i in range(30)]
    ),
    "sixty edges": sixty_edges(),
    "grouped keys": induction_like(GROUPED, 2, 3),
    "shared inputs alone": Circuit(GROUPED, ["input->a2.h1<k>", "input->a2.h1<v>", "input->logits"]),
    "neurons": Circuit(
        Graph(n_layers=1, n_heads=2, n_key_value_heads=2, d_mlp=3072, neurons=True),
        {f"a0.h1->m0.n{i}": -float(i) for i in range(0, 3000, 100)},
        roles={f"m0.n{i}": f"$x_{i}$ é 中 \\ <b> and more words than fit" for i in range(0, 3000, 100)},
        metadata={"model": "a very long name of a model " * 20},
    ),
}


@pytest.fixture(params=CIRCUITS)
def circuit(request: pytest.FixtureRequest) -> Circuit:
    return CIRCUITS[request.param]


def boxes(figure: Figure) -> dict[str, FancyBboxPatch]:
    return {str(patch.get_gid()): patch for patch in figure.axes[0].patches if isinstance(patch, FancyBboxPatch)}


def lines(figure: Figure) -> list[PathPatch]:
    return [patch for patch in figure.axes[0].patches if isinstance(patch, PathPatch)]


def test_every_node_has_a_box_and_every_edge_a_line(circuit: Circuit) -> None:
    figure = circuit_figure(circuit)
    names = set(boxes(figure))
    assert {str(node) for node in circuit.nodes} <= names
    assert {str(line.get_gid()) for line in lines(figure)} == {str(edge) for edge in circuit.edges}
    assert names == {str(node) for node in circuit.nodes} | {str(item) for item in lay_out(circuit).centres}


def test_no_text_leaves_the_picture_or_covers_another(circuit: Circuit) -> None:
    figure = circuit_figure(circuit)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    axes = figure.axes[0]
    texts = [*axes.texts, *axes.get_yticklabels(), *figure.texts]
    for legend in figure.legends:
        texts += legend.get_texts()
    shown = [(text.get_text(), text.get_window_extent(renderer)) for text in texts if text.get_text()]
    whole = figure.bbox.padded(1)
    for words, place in shown:
        assert whole.x0 <= place.x0 and place.x1 <= whole.x1 and whole.y0 <= place.y0 and place.y1 <= whole.y1, words
    for (a, first), (b, second) in itertools.combinations(shown, 2):
        assert not first.padded(-1).overlaps(second.padded(-1)), (a, b)


def test_no_box_covers_another_and_no_edge_runs_behind_one(circuit: Circuit) -> None:
    check_layout(circuit)


def test_the_same_holds_for_random_circuits() -> None:
    rng = random.Random(0)
    for _ in range(100):
        check_layout(random_circuit(rng))


def check_layout(circuit: Circuit) -> None:
    layout = lay_out(circuit)
    half = np.array([BOX_WIDTH, BOX_HEIGHT]) / 2
    places = {item: Bbox([centre - half, centre + half]) for item, centre in layout.centres.items()}
    for a, b in itertools.combinations(places.values(), 2):
        assert not a.overlaps(b)
    for (edge, end), points in layout.paths.items():
        assert points[0][1] == pytest.approx(places[edge.writer].y1)
        assert points[-1][1] == pytest.approx(places[end].y0)
        heights = [y for _, y in points]
        assert heights == sorted(heights)
        for (x0, y0), (x1, y1) in itertools.pairwise(points):
            if x0 == x1:
                between = [item for item, box in places.items() if box.x0 < x0 < box.x1 and y0 < (box.y0 + box.y1) / 2 < y1]
                assert not between, f"{edge} runs behind {between}"
            else:
                assert all(box.y1 <= y0 + 1e-9 or box.y0 >= y1 - 1e-9 for box in places.values()), edge


def test_an_edge_enters_the_slot_that_it_names() -> None:
    layout = lay_out(Circuit(MINI, ["a0.h0->a1.h0<q>", "a0.h0->a1.h0<k>", "a0.h0->a1.h0<v>"]))
    ends = {edge.slot: points[-1][0] for (edge, _), points in layout.paths.items()}
    assert ends["q"] < ends["k"] < ends["v"]
    texts = {text.get_text(): text.get_position()[0] for text in circuit_figure(Circuit(MINI, ["m0->a1.h0<v>"])).axes[0].texts}
    assert texts["v"] > texts["a1.h0"] and "q" not in texts


def test_heads_that_share_keys_are_all_reached() -> None:
    circuit = Circuit(GROUPED, ["input->a2.h1<k>"], ["a2.h4", "a2.h7", "a2.h0"])
    ends = {str(end) for _, end in lay_out(circuit).paths}
    assert ends == {"a2.h4", "a2.h7"}
    alone = {end for _, end in lay_out(CIRCUITS["shared inputs alone"]).paths}
    assert sum(isinstance(end, Reader) for end in alone) == 2


def test_width_says_how_large_and_colour_which_sign() -> None:
    figure = circuit_figure(Circuit(MINI, {"m0->logits": 2.0, "m1->logits": -1.0, "m2->logits": 0.5, "m3->logits": None}))
    drawn = {str(line.get_gid()): line for line in lines(figure)}
    widths = [drawn[f"m{layer}->logits"].get_linewidth() for layer in range(4)]
    assert widths == sorted(widths, reverse=True) and widths[2] > widths[3]
    colours = [drawn[f"m{layer}->logits"].get_edgecolor() for layer in range(4)]
    assert colours[0] == colours[2] and len({colours[0], colours[1], colours[3]}) == 3
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert words == ["edge score up to +2", "edge score up to -1", "edge without score"]
    keys = [to_rgb(line.get_color()) for line in figure.legends[0].get_lines()]
    assert keys == [colour[:3] for colour in (colours[0], colours[1], colours[3])]


def test_roles_have_colours_of_their_own() -> None:
    figure = circuit_figure(induction_like(MINI, 2, 2))
    fills = {name: box.get_facecolor() for name, box in boxes(figure).items()}
    assert fills["a0.h0"] == fills["a0.h1"] != fills["a2.h0"] == fills["a2.h1"] != fills["logits"]
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert words[:2] == ["induction", "previous token"]


def test_too_many_nodes_are_refused_with_a_way_out() -> None:
    graph = Graph(n_layers=1, n_heads=MOST_NODES + 1, n_key_value_heads=MOST_NODES + 1, d_mlp=0)
    with pytest.raises(GraphError, match=r"top\(k\)"):
        circuit_figure(Circuit(graph, [], [node for node in graph.nodes() if node.kind == "head"]))


def test_of_a_large_circuit_the_strongest_whole_paths_are_drawn_and_that_is_said() -> None:
    graph = Graph(n_layers=3, n_heads=4, n_key_value_heads=4, d_mlp=8)
    edges, draw = list(graph.edges()), random.Random(0)
    large = Circuit(graph, {str(edge): draw.uniform(-1, 1) for edge in edges})
    figure = circuit_figure(large)
    drawn = Circuit(graph, [patch.get_gid() for patch in figure.axes[0].patches if "->" in str(patch.get_gid())])
    assert len(edges) > MOST_EDGES >= len(drawn) > MOST_EDGES // 2 and drawn.connected().edges == drawn.edges
    strongest = max(large.edges, key=lambda edge: abs(large.edges[edge] or 0.0))
    assert strongest in drawn.edges
    words = [text.get_text() for text in figure.texts]
    assert any(f"{len(edges)} of {len(edges)} edges; the strongest {len(drawn)} edges are drawn" in text for text in words)


def test_input_is_at_the_bottom_and_later_layers_above() -> None:
    layout = lay_out(sixty_edges())
    placed = sorted(layout.centres, key=lambda item: layout.centres[item][1])
    ranks = [item.rank[:3] for item in placed]
    assert ranks == sorted(ranks)
