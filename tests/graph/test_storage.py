"""Files: exact round trips, one kind of error for anything damaged, the same bytes every time."""

import json
import os
import random
import re
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import networkx
import pytest

from circuits.errors import FileFormatError
from circuits.graph import Circuit, Graph
from circuits.graph.storage import FORMATS, export, load
from tests.graph.samples import random_circuit

GRAPH = Graph(n_layers=3, n_heads=4, n_key_value_heads=2, d_mlp=4)
EXAMPLE = Circuit(
    GRAPH,
    {"input->a0.h1<q>": 0.5, "a0.h1->a2.h1<k>": -1.25e-7, "a2.h2->logits": None, "m0->m1": 3},
    {"a0.h1": 0.75},
    positions={"a0.h1": [1, "subject"]},
    evidence={"a2.h2": {"prefix_matching": 0.8, "interval": [0.7, 0.9]}},
    roles={"a2.h2": 'induction "<&>" \\'},
    metadata={"model": "mini", "seed": 0},
)


def test_json_gives_300_circuits_back_exactly(tmp_path: Path):
    path = tmp_path / "found.json"
    for seed in range(300):
        circuit = random_circuit(random.Random(seed))
        circuit.save(path)
        content = path.read_bytes()
        again = Circuit.load(path)
        assert again == circuit
        again.save(path)
        assert path.read_bytes() == content
    assert [file.name for file in tmp_path.iterdir()] == ["found.json"]


def test_json_is_node_link_data(tmp_path: Path):
    EXAMPLE.save(tmp_path / "found.json")
    document = json.loads((tmp_path / "found.json").read_text())
    assert document.pop("format") == "transformer-circuits/circuit"
    assert document.pop("version") == 1
    assert document == networkx.node_link_data(EXAMPLE.to_networkx(), edges="edges")
    assert document["graph"]["counts"] == {"nodes": 6, "edges": 4, "graph_nodes": 17, "graph_edges": GRAPH.edge_count}


def test_graphml_is_what_networkx_reads(tmp_path: Path):
    for seed in range(40):
        circuit = random_circuit(random.Random(seed))
        circuit.save(tmp_path / "found.graphml")
        text = (tmp_path / "found.graphml").read_text(encoding="utf-8")
        ids = re.findall(r'<edge [^>]*id="([^"]*)"', text)
        assert len(ids) == len(set(ids))
        network = networkx.parse_graphml(text, force_multigraph=True)
        expected = circuit.to_networkx()
        assert set(network.nodes) == set(expected.nodes)
        scores = {(a, b, d["slot"]): d.get("score") for a, b, d in network.edges(data=True)}
        assert scores == {(a, b, key): d.get("score") for a, b, key, d in expected.edges(keys=True, data=True)}


def dot_strings(text: str) -> list[str]:
    return re.findall(r'"((?:[^"\\]|\\.)*)"', text)


def test_dot_escapes_every_label(tmp_path: Path):
    hostile = ['" ]; evil [label="x', "back\\", 'line\nbreak"', "\\N", "<b>bold</b>", "\u2028"]
    for role in hostile:
        circuit = Circuit(GRAPH, {"a2.h2->logits": 0.5}, roles={"a2.h2": role})
        circuit.save(tmp_path / "found.dot")
        text = (tmp_path / "found.dot").read_text(encoding="utf-8")
        outside = re.sub(r'"(?:[^"\\]|\\.)*"', "@", text)
        assert "evil" not in outside
        assert '"' not in outside
        assert "\\" not in outside
        visible = re.sub(r"[^\x20-\x7e]", " ", role).replace("\\", "\\\\").replace('"', '\\"')
        assert f"a2.h2\\n{visible}" in dot_strings(text)
        assert outside.count("@ -> @") == 1


def test_dot_draws_each_node_and_edge_once(tmp_path: Path):
    EXAMPLE.save(tmp_path / "found.dot")
    lines = (tmp_path / "found.dot").read_text(encoding="utf-8").splitlines()
    network = EXAMPLE.to_networkx()
    assert sum(" -> " in line for line in lines) == network.number_of_edges()
    assert sum(line.startswith('  "') and " -> " not in line for line in lines) == network.number_of_nodes()


@pytest.mark.parametrize("name", FORMATS)
def test_suffix_and_format_name_choose_the_same(tmp_path: Path, name: str):
    circuit = random_circuit(random.Random(3), bare=True)
    export(circuit, tmp_path / f"found{FORMATS[name].suffix}")
    export(circuit, tmp_path / "other.txt", name)
    assert (tmp_path / f"found{FORMATS[name].suffix}").read_bytes() == (tmp_path / "other.txt").read_bytes()


def test_wrong_places_are_refused(tmp_path: Path):
    with pytest.raises(FileFormatError, match=r"found.txt: unknown kind of file; expected .* \.json, \.mib\.json"):
        EXAMPLE.save(tmp_path / "found.txt")
    with pytest.raises(FileFormatError, match="unknown format 'png'"):
        export(EXAMPLE, tmp_path / "found", "png")
    with pytest.raises(FileFormatError, match=r"found.json: cannot be written: No such file"):
        EXAMPLE.save(tmp_path / "nowhere" / "found.json")
    with pytest.raises(FileFormatError, match=r"found.json: No such file"):
        Circuit.load(tmp_path / "found.json")
    with pytest.raises(FileFormatError, match="only written"):
        Circuit.load(tmp_path / "found.graphml")
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(FileFormatError, match="cannot be read"):
        Circuit.load(tmp_path / "folder.json")
    with pytest.raises(FileFormatError, match="cannot be written"):
        EXAMPLE.save(tmp_path / "folder.json")
    assert [file.name for file in tmp_path.iterdir()] == ["folder.json"]


def test_failed_writing_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "found.json"
    EXAMPLE.save(path)
    content = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(FileFormatError, match="the disk is full"):
        Circuit(GRAPH).save(path)
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture
def document(tmp_path: Path) -> dict:
    EXAMPLE.save(tmp_path / "found.json")
    return json.loads((tmp_path / "found.json").read_text())


DAMAGE = {
    "duplicate key": ('"version": 1', '"version": 1, "version": 1', "'version' appears twice"),
    "NaN": ('"score": 0.5', '"score": NaN', "holds NaN"),
    "infinity": ('"score": 0.5', '"score": -Infinity', "holds -Infinity"),
    "overflow": ('"score": 0.5', '"score": 1e999', "too large for a float"),
    "huge integer": ('"seed": 0', f'"seed": {"9" * 5000}', "5000 digits"),
    "deep nesting": ('"seed": 0', '"seed": ' + "[" * 100_000 + "]" * 100_000, "nested too deeply"),
    "nesting": ('"seed": 0', '"seed": ' + "[" * 40 + "]" * 40, "more than 16 levels"),
    "phantom edge": ('"source": "m0", "target": "m1"', '"source": "m1", "target": "m1"', "m1 is not computed after m1"),
    "phantom node": ('"source": "m0", "target": "m1"', '"source": "m0", "target": "m5"', "the graph has 3 layers"),
    "unlisted node": (
        '"source": "m0", "target": "m1"',
        '"source": "m0", "target": "m2"',
        "counts says nodes 6; by its own",
    ),
    "wrong count": ('"edges": 4', '"edges": 5', "counts says edges 5; by its own contents it is 4"),
    "wrong size": ('"graph_nodes": 17', '"graph_nodes": 18', "graph_nodes 18"),
    "bool as integer": ('"n_layers": 3', '"n_layers": true', "n_layers True; expected a whole number"),
    "float as integer": ('"n_layers": 3', '"n_layers": 3.0', "expected a whole number"),
    "integer as bool": ('"parallel": false', '"parallel": 0', "expected true or false"),
    "bool as score": ('"score": 0.5', '"score": true', "is a bool"),
    "text as score": ('"score": 0.5', '"score": "0.5"', "is a str"),
    "later version": (
        '"version": 1',
        '"version": 2',
        "version 2 of the format transformer-circuits/circuit: this program reads version 1; a newer",
    ),
    "another format": ('"transformer-circuits/circuit"', '"other"', "must say 'transformer-circuits/circuit'"),
    "missing key": ('"version": 1,', "", "version None of the format"),
    "missing part": ('"directed": true,', "", "lacks the key 'directed'"),
    "unknown key": ('"version": 1', '"version": 1, "extra": 1', "'extra', which has no meaning"),
    "unknown attribute": ('"role"', '"rule"', "'rule', which has no meaning"),
    "wrong kind": ('"kind": "head"', '"kind": "mlp"', "says kind 'mlp'"),
    "kind of another type": ('"kind": "head"', '"kind": ["head"]', "says kind a list"),
    "lone surrogate": ('"subject"', '"\\ud800"', "lone surrogate"),
    "cut off": ("}\n ]\n}", "", "not JSON"),
    "group of another": (
        '"source": "a2.h1<k>", "target": "a2.h2"',
        '"source": "a2.h1<k>", "target": "a2.h1"',
        "does not belong",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_file_is_refused_with_file_and_fault(tmp_path: Path, document: dict, name: str):
    before, after, message = DAMAGE[name]
    path = tmp_path / "found.json"
    text = path.read_text(encoding="utf-8")
    assert before in text
    path.write_text(text.replace(before, after, 1), encoding="utf-8")
    with pytest.raises(FileFormatError) as error:
        Circuit.load(path)
    assert str(error.value).startswith(f"{path}: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


def test_other_content_is_refused(tmp_path: Path):
    path = tmp_path / "found.json"
    contents = [
        b"",
        b"\xff\xfe{}",
        b"[]",
        b"null",
        b'"text"',
        b"3",
        b"{}",
        b"\xef\xbb\xbf{}",
        b"[" * 500_000,
        b'{"a":' * 200_000,
    ]
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(FileFormatError, match=re.escape(f"{path}: ")):
            Circuit.load(path)
    path.write_bytes(b" " * 2_000_000)
    with pytest.raises(FileFormatError, match="larger than 1,000 bytes"):
        load(path, max_bytes=1_000)


def mutate(content: bytes, rng: random.Random) -> bytes:
    """Change some bytes, or cut, double or swap pieces, or change a value of the document."""
    kind = rng.randrange(6)
    start = rng.randrange(len(content))
    end = min(len(content), start + rng.choice([1, 2, 8, 60]))
    if kind == 0:
        return content[:start] + bytes(rng.randrange(256) for _ in range(rng.randint(1, 3))) + content[end:]
    if kind == 1:
        return content[:start] + content[end:]
    if kind == 2:
        return content[:end] + content[start:]
    if kind == 3:
        return content[:start]
    if kind == 4:
        return content.replace(*rng.choice([(b"1", b"2"), (b"0", b"-1"), (b"q", b"k"), (b"true", b"false"), (b'"', b"")]), 2)
    return json.dumps(mutate_value(json.loads(content), rng)).encode()


def mutate_value(value: object, rng: random.Random) -> object:
    odd = [None, True, -1, 0, 1, 2**40, 1e308, "", "a0.h1", "m1->m1", [], {}, [[]], {"id": {}}, "\ud800", 10**19]
    if not isinstance(value, (dict, list)) or not value or rng.random() < 0.15:
        return rng.choice(odd)
    keys = list(value) if isinstance(value, dict) else range(len(value))
    key = rng.choice(keys)
    if rng.random() < 0.2:
        copied = value.copy()
        del copied[key]
        return copied
    if isinstance(value, list) and rng.random() < 0.1:
        return [*value, value[key]]
    copied = value.copy()
    copied[key] = mutate_value(value[key], rng)
    return copied


def test_1000_mutated_files_give_a_circuit_or_the_one_error(tmp_path: Path):
    rng = random.Random(0)
    refused = 0
    originals = []
    for index in range(60):
        path = tmp_path / f"found{['.json', '.mib.json'][index % 2]}"
        random_circuit(rng, bare=bool(index % 2)).save(path)
        originals.append((path, path.read_bytes()))
    for index in range(1_000):
        path, content = originals[index % 60]
        path.write_bytes(mutate(content, rng))
        start = time.perf_counter()
        try:
            loaded = Circuit.load(path)
        except FileFormatError as error:
            refused += 1
            assert str(error).startswith(f"{path}: ")
            assert "\n" not in str(error)
        else:
            assert all(loaded.graph.has_edge(edge) for edge in loaded.edges)
            loaded.save(path)
            assert Circuit.load(path) == loaded
        assert time.perf_counter() - start < 1
    assert 500 < refused < 1_000


def test_hostile_shapes_are_quick_and_small(tmp_path: Path, document: dict):
    path = tmp_path / "found.json"
    shape = {
        "n_layers": 10_000,
        "n_heads": 10_000,
        "n_key_value_heads": 1,
        "d_mlp": 10_000_000,
        "parallel": True,
        "neurons": True,
    }
    document["graph"]["shape"] = shape
    for layers in (10_000, 10**9):
        shape["n_layers"] = layers
        path.write_text(json.dumps(document))
        tracemalloc.start()
        start = time.perf_counter()
        with pytest.raises(FileFormatError):
            Circuit.load(path)
        assert time.perf_counter() - start < 1
        assert tracemalloc.get_traced_memory()[1] < 64e6
        tracemalloc.stop()


SAVE = """
import random, sys
from pathlib import Path
sys.path.insert(0, {root!r})
from circuits.graph.storage import FORMATS, export
from tests.graph.samples import random_circuit
for seed in range(20):
    for name in FORMATS:
        export(random_circuit(random.Random(seed), bare=name == "mib"), Path({folder!r}) / f"{{seed}}.{{name}}", name)
"""


def test_same_bytes_for_every_hash_seed(tmp_path: Path):
    root = str(Path(__file__).parents[2])
    written = []
    for seed in ("0", "4242"):
        folder = tmp_path / seed
        folder.mkdir()
        script = SAVE.format(root=root, folder=str(folder))
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "-c", script], check=True, env=environment, cwd=root)
        written.append({file.name: file.read_bytes() for file in folder.iterdir()})
    assert len(written[0]) == 20 * len(FORMATS)
    assert written[0] == written[1]
