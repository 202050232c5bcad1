"""Pictures in files: one look in every format, equal bytes, text as text; and in a notebook's cell."""

import re
from pathlib import Path

import pytest

from circuits.errors import CircuitsError, FileFormatError
from circuits.graph import Circuit, Graph
from circuits.plots import circuit_figure, save

GRAPH = Graph(n_layers=2, n_heads=2, n_key_value_heads=2, d_mlp=8)
BEGINNINGS = {"png": b"\x89PNG\r\n\x1a\n", "svg": b"<?xml", "pdf": b"%PDF-"}


def circuit(role: str = "induction") -> Circuit:
    edges = {"input->a0.h1<v>": 0.25, "a0.h1->a1.h0<k>": -0.5, "a1.h0->logits": 1.5}
    return Circuit(GRAPH, edges, roles={"a1.h0": role})


def test_one_call_writes_every_format_and_equal_pictures_are_equal_bytes(tmp_path: Path) -> None:
    written = save(circuit_figure(circuit()), tmp_path / "circuit.png", formats=tuple(BEGINNINGS))
    assert [file.name for file in written] == ["circuit.png", "circuit.svg", "circuit.pdf"]
    again = save(circuit_figure(circuit()), tmp_path / "again.png", formats=tuple(BEGINNINGS))
    for (name, beginning), first, second in zip(BEGINNINGS.items(), written, again, strict=True):
        content = first.read_bytes()
        assert content.startswith(beginning) and content == second.read_bytes(), name
        assert not re.search(rb"20[0-9]{2}-[01][0-9]-|CreationDate|matplotlib v", content), f"{name} says when it was made"
    assert ">a1.h0</text>" in written[1].read_text(), "text of an SVG is text"
    assert b"/Subtype /Type0" in written[2].read_bytes() or b"/FontFile2" in written[2].read_bytes(), "letters are embedded"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in (*written, *again))


def test_the_suffix_says_the_format_where_nothing_else_does(tmp_path: Path) -> None:
    assert save(circuit_figure(circuit()), tmp_path / "a.SVG") == [tmp_path / "a.SVG"]
    assert (tmp_path / "a.SVG").read_bytes().startswith(b"<?xml")
    for name in ("a.bmp", "a"):
        with pytest.raises(CircuitsError, match="saved as png, svg, pdf"):
            save(circuit_figure(circuit()), tmp_path / name)
    with pytest.raises(FileFormatError, match="cannot be written"):
        save(circuit_figure(circuit()), tmp_path / "nowhere" / "a.png")


def test_a_large_circuit_shows_its_strongest_edges_in_a_cell() -> None:
    graph = Graph(n_layers=30, n_heads=12, n_key_value_heads=3, d_mlp=8)
    edges = {str(edge): 1.0 / (1 + place) for place, edge in zip(range(600), graph.edges(), strict=False)}
    whole = Circuit(graph, {**edges, "a29.h0->logits": 9.0}, ["a3.h1"], roles={"a3.h1": "<script>alert(1)</script>"})
    shown = whole._repr_html_()
    assert "data:image/png;base64," in shown and "no picture" not in shown and len(shown) < 200_000
    assert "<script" not in shown and "601 edges of " in shown


def test_markup_in_words_of_a_small_one_is_text() -> None:
    shown = circuit("<img src=x onerror=alert(1)>")._repr_html_()
    assert "<img src=x" not in shown and shown.count("<img ") == 1
