"""The table of search methods: every row finds a planted circuit and means what it says, and nothing else knows the rows."""

import ast
import dataclasses
import functools
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import circuits
from circuits.attribution import EdgeScores
from circuits.cli import app
from circuits.errors import CircuitsError
from circuits.graph import Circuit
from circuits.models import Model
from circuits.search.judging.compare import supporting_sign
from circuits.search.methods import table
from circuits.search.methods.method import LEVELS, OPTIONS, Method
from circuits.search.methods.table import DEFAULT, METHODS, check_fit, find_method, register_method
from circuits.tasks import PromptPairs
from circuits.tasks.library.planted import carrying, planted_task

metric = circuits.metrics.logit_difference
PACKAGE = Path(circuits.__file__).parent
OWN_FILES = ("attribution", "search/methods")
"""Where methods are known by name."""


@functools.cache
def planted_chain() -> tuple[Model, PromptPairs, Circuit]:
    planted, pairs = planted_task("chain", 0, count=12)
    return planted.model, pairs, carrying(planted, pairs)


def through_values(truth: Circuit) -> set[str]:
    """The edges of the way to the logits that leads through no query and no key."""
    edges = [edge for edge in truth.edges if edge.slot not in ("q", "k")]
    return {str(edge) for edge in Circuit(truth.graph, edges).connected().edges}


@pytest.fixture(autouse=True)
def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test begins and ends with nothing registered."""
    monkeypatch.setattr(table, "REGISTERED", {})


@pytest.mark.parametrize("name", METHODS)
def test_a_method_finds_a_planted_chain_with_scores_of_its_sign(name: str) -> None:
    model, pairs, truth = planted_chain()
    method, whole = METHODS[name], {str(edge) for edge in truth.edges}
    found = circuits.discover(model, pairs, metric, method=name, edges=len(whole), held_out=pairs, random_circuits=19)
    scores = {str(edge): score or 0.0 for edge, score in found.circuit.edges.items()}
    rounding = 1e-9 * max(abs(score) for score in scores.values())
    sure = {edge for edge, score in scores.items() if abs(score) > rounding}
    assert sure == (through_values(truth) if name == "relp" else whole), "relevance passes through no query and no key"
    if name != "relp":
        assert found.verdict.faithfulness.effect == pytest.approx(1.0, abs=1e-6)
        assert found.verdict.p_value == pytest.approx(0.05) and found.verdict.prompts == len(pairs)
    signs = {(scores[edge] > 0) - (scores[edge] < 0) for edge in sure}
    assert signs == {method.sign or 1}, "every edge of the chain supports the metric"
    assert method.signed or (found.scores is not None and bool((found.scores.values >= 0).all()))
    assert found.circuit.metadata["method"] == method.label
    assert (found.curve is None) == (found.scores is None)
    measured = found.circuit.metadata["metric"]
    assert supporting_sign(found.circuit) == (0 if measured == "kl_divergence" else method.sign)
    assert (measured == "kl_divergence") == ("KL" in method.measures) and (not method.measures or "KL" in method.score)


@pytest.mark.parametrize("name", METHODS)
def test_what_a_method_does_not_take_is_refused_by_name(name: str, tmp_path: Path) -> None:
    model, pairs, _ = planted_chain()
    method = METHODS[name]
    asked = {"steps": 3, "threshold": 0.5, "neurons": True, "verify": True}
    takes = {*method.options, *(["neurons"] if "neurons" in method.levels else []), *(["verify"] if method.estimates else [])}
    for option, value in asked.items():
        if option not in takes:
            with pytest.raises(CircuitsError, match=f"{option} goes with method .*, not with {name}$"):
                circuits.discover(model, pairs, metric, method=name, **{option: value})
            words = ["--level", "neurons"] if option == "neurons" else [f"--{option}", *([] if value is True else [str(value)])]
            answer = CliRunner().invoke(app, ["discover", "--method", name, *words, "--out", str(tmp_path / "out")])
            assert answer.exit_code == 2 and answer.stderr.count("\n") == 1
            assert " ".join(words[:2] if option == "neurons" else words[:1]) in answer.stderr and name in answer.stderr
    for option in takes & set(OPTIONS):
        check_fit(method, level="heads", verify=False, given={option: asked[option]})


def test_the_help_lists_every_method_with_what_it_takes() -> None:
    text = CliRunner().invoke(app, ["discover", "--help"], terminal_width=80).stdout.partition("\nMethods:\n")[2]
    entries = re.split(r"^  (?=\S)", text, flags=re.MULTILINE)[1:]
    assert [entry.split()[0] for entry in entries] == list(METHODS)
    for entry, method in zip(entries, METHODS.values(), strict=True):
        words = " ".join(entry.split())
        assert method.summary in words and ("(the default)" in words) == (method.name == DEFAULT)
        assert all((f"--{option}" in words) == (option in method.options) for option in OPTIONS)
        assert ("--level neurons" in words) == ("neurons" in method.levels) and ("--verify" in words) == method.estimates
    assert max(map(len, text.splitlines())) <= 80


def own_run(
    model: Model,
    pairs: PromptPairs,
    metric: Any,
    *,
    edges: int,
    seed: int,
    budget: int,
    progress: Any,
    steps: int,
) -> EdgeScores:
    """Exact effects with their signs turned: positive = the edge supports the metric. Says nothing of itself."""
    found = circuits.attribute_edges(model, pairs, metric, method="exact", budget=budget, progress=progress)
    return dataclasses.replace(found, by_label=-found.by_label * steps, metadata={"metric": "logit_difference"})


OWN = Method(name="mine", summary="by hand", run=own_run, score="score: larger = supports", sign=1, options={"steps": 2})


def test_a_method_of_one_s_own_is_known_by_name() -> None:
    model, pairs, truth = planted_chain()
    with pytest.raises(CircuitsError, match="unknown method 'mine': there are eap,"):
        find_method("mine")
    register_method(OWN)
    options = {"edges": len(truth.edges), "held_out": pairs, "random_circuits": 0}
    found = circuits.discover(model, pairs, metric, method="mine", **options)
    assert found.circuit.edges.keys() == truth.edges.keys() and found.circuit.metadata["method"] == "mine"
    thrice = circuits.discover(model, pairs, metric, method="mine", steps=3, **options)
    assert found.scores is not None and thrice.scores is not None
    assert torch.allclose(thrice.scores.values, 1.5 * found.scores.values), "options reach the method, or its own default does"
    with pytest.raises(CircuitsError, match="neurons goes with"):
        circuits.discover(model, pairs, metric, method="mine", neurons=True)
    table.REGISTERED.clear()
    assert supporting_sign(found.circuit) == 1, "a circuit says what its signs mean where the method is not known"


def test_what_a_method_gives_is_checked() -> None:
    model, pairs, _ = planted_chain()
    register_method(dataclasses.replace(OWN, run=lambda *args, **options: ["m0->logits"]))
    with pytest.raises(CircuitsError, match="mine gave a list: expected EdgeScores or a Circuit"):
        circuits.discover(model, pairs, metric, method="mine")


MISFITS: dict[str, tuple[Any, str]] = {
    "name": ("", "a text that is not empty"),
    "run": ("circuits.search", "a function"),
    "sign": (2, "-1, 0 or 1"),
    "options": ({"temperature": 1.0}, "steps, threshold"),
    "levels": (("edges",), "heads, neurons"),
    "estimates": (1, "True or False"),
    "gives_circuit": ("yes", "True or False"),
    "measures": (None, "a text"),
}


@pytest.mark.parametrize("field", MISFITS)
def test_a_record_that_does_not_fit_is_refused_by_name(field: str) -> None:
    value, wanted = MISFITS[field]
    record = dataclasses.replace(OWN)
    object.__setattr__(record, field, value)  # the types are checked in these tests, not where users run
    with pytest.raises(CircuitsError, match=f"{field}=.*expected .*{wanted}"):
        register_method(record)
    with pytest.raises(CircuitsError, match="cannot be replaced"):
        register_method(dataclasses.replace(OWN, name=DEFAULT))


def lists_of_methods(tree: ast.AST) -> list[str]:
    """Where names of methods are compared or stand together: two in one collection or in one text that is no docstring."""
    documents = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    found = []
    for node in ast.walk(tree):
        parts = list(ast.iter_child_nodes(node))
        names = {part.value for part in parts if isinstance(part, ast.Constant) and part.value in METHODS}
        listed = isinstance(node, ast.Tuple | ast.List | ast.Set | ast.Dict) and len(names) > 1
        if listed or (isinstance(node, ast.Compare) and names):
            found.append(ast.unparse(node))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documents:
            words = set(re.findall(r"[a-z]+(?:-[a-z]+)*", node.value))
            found += [node.value] if len(words & METHODS.keys()) > 1 else []
    return found


def test_methods_are_known_by_name_in_the_table_and_their_own_files_alone() -> None:
    files = [path for path in PACKAGE.rglob("*.py") if not path.relative_to(PACKAGE).as_posix().startswith(OWN_FILES)]
    assert len(files) > 150
    named = {str(path): lists_of_methods(ast.parse(path.read_text())) for path in files if path.name != "__init__.py"}
    assert not {path: lists for path, lists in named.items() if lists}


@pytest.mark.parametrize(
    "code",
    ['method in ("eap", "relp")', 'method == "acdc"', 'SIGNS = {"acdc": 1, "prune": 0}', 'help = "by eap and eap-ig"'],
)
def test_this_test_sees_a_second_list(code: str) -> None:
    assert lists_of_methods(ast.parse(code))
    assert not lists_of_methods(ast.parse('"""eap and eap-ig."""\nattribute_edges(model, method="eap")'))


def test_the_fields_of_the_table_s_own_rows_fit() -> None:
    for method in METHODS.values():
        register_method(dataclasses.replace(method, name=f"{method.name}-again"))
        assert method.levels[0] == LEVELS[0] and method.sign in (-1, 0, 1)
    assert len({method.label for method in METHODS.values()}) == len(METHODS)
