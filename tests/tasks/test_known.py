"""Circuits known from papers: what ships, which models they fit, and how found ones are held against them."""

import pytest

from circuits.errors import GraphError, PromptError
from circuits.graph import Graph, Node
from circuits.tasks import TASKS, known_circuit, known_for, precision_recall

GPT2 = {"n_layers": 12, "n_heads": 12, "n_key_value_heads": 12, "d_mlp": 3072}
ATTENTION_ONLY = {"n_layers": 4, "n_heads": 8, "n_key_value_heads": 8, "d_mlp": 0}

IOI = {
    "name_mover": "9.9 10.0 9.6",
    "backup_name_mover": "10.10 10.6 10.2 10.1 11.2 9.7 9.0 11.9",
    "negative_name_mover": "10.7 11.10",
    "s_inhibition": "7.3 7.9 8.6 8.10",
    "induction": "5.5 5.8 5.9 6.9",
    "duplicate_token": "0.1 0.10 3.0",
    "previous_token": "2.2 4.11",
}
GREATER_THAN = {"early": "0.1 0.3 0.5", "late": "5.5 6.1 6.9 7.10 8.11 9.1"}
DOCSTRING = {"circuit": "0.5 1.2 1.4 2.0 3.0 3.6"}


@pytest.mark.parametrize(
    ("task", "model", "reference", "heads", "mlps"),
    [
        ("ioi", "gpt2", "Wang et al. 2022", IOI, ()),
        ("greater-than", "gpt2", "Hanna et al. 2023", GREATER_THAN, (0, 1, 2, 3, 8, 9, 10, 11)),
        ("docstring", "attn-only-4l", "Heimersheim and Janiak 2023", DOCSTRING, ()),
    ],
)
def test_what_ships_is_what_the_papers_say(
    task: str, model: str, reference: str, heads: dict[str, str], mlps: tuple[int, ...]
) -> None:
    known = known_circuit(task)
    expected = {kind: tuple("a{}.h{}".format(*name.split(".")) for name in names.split()) for kind, names in heads.items()}
    assert (known.task, known.model, known.reference) == (task, model, reference)
    assert dict(known.heads) == expected
    assert known.mlps == tuple(f"m{layer}" for layer in mlps)
    assert task in TASKS
    assert set(known.nodes) == {name for names in expected.values() for name in names} | set(known.mlps)
    assert list(known.nodes) == [str(node) for node in sorted(map(Node.parse, known.nodes))]
    graph = Graph(**(GPT2 if model == "gpt2" else ATTENTION_ONLY))
    assert all(node in graph for node in known.nodes)


def test_the_sizes_are_those_of_the_papers() -> None:
    sizes = {task: sum(map(len, known_circuit(task).heads.values())) for task in ("ioi", "greater-than", "docstring")}
    assert sizes == {"ioi": 26, "greater-than": 9, "docstring": 6}
    with pytest.raises(TypeError):
        known_circuit("ioi").heads["name_mover"] = ()  # pyright: ignore[reportIndexIssue]


def test_tasks_without_a_known_circuit_are_refused_by_name() -> None:
    with pytest.raises(PromptError, match="no known circuit for 'facts'; there is one for ioi, greater-than, docstring"):
        known_circuit("facts")


@pytest.mark.parametrize(
    ("shape", "change", "fitting"),
    [
        (GPT2, {}, {"ioi", "greater-than"}),
        (GPT2, {"neurons": True}, {"ioi", "greater-than"}),
        (GPT2, {"n_layers": 24}, set()),
        (GPT2, {"n_heads": 16, "n_key_value_heads": 16}, set()),
        (GPT2, {"n_key_value_heads": 4}, set()),
        (GPT2, {"d_mlp": 0}, set()),
        (GPT2, {"parallel": True}, set()),
        (ATTENTION_ONLY, {}, {"docstring"}),
        (ATTENTION_ONLY, {"parallel": True}, {"docstring"}),
        (ATTENTION_ONLY, {"d_mlp": 1024}, set()),
    ],
)
def test_the_shape_decides_which_circuit_is_known(shape: dict, change: dict, fitting: set[str]) -> None:
    graph = Graph(**{**shape, **change})
    assert {task for task in TASKS if known_for(task, graph)} == fitting


def test_precision_and_recall_count_heads_alone() -> None:
    known = known_circuit("docstring")
    assert precision_recall(known.nodes, known) == (1, 1)
    assert precision_recall(["a0.h5", "a1.h2", "a0.h0", "m0", "input", "logits"], known) == (2 / 3, 2 / 6)
    assert precision_recall([Node.parse("a0.h5"), "a0.h5"], known) == (1, 1 / 6)
    assert precision_recall(["a0.h0"], known) == (0, 0)
    assert precision_recall([], known) == precision_recall(["m3"], known) == (0, 0)
    with pytest.raises(GraphError, match="'a0h1' is not a node"):
        precision_recall(["a0h1"], known)
