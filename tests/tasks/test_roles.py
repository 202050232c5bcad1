"""Roles of tokens: they part every prompt, align prompts of different lengths, and are refused where a prompt lacks one."""

import csv
import dataclasses
import json
import re
from pathlib import Path

import pytest
import torch

from circuits import PromptPairs, load_model
from circuits.errors import CircuitsError, FileFormatError, GraphError, PromptError
from circuits.graph import Graph, Roles
from circuits.tasks import TASKS
from circuits.tasks.roles import required_roles, role_tokens, with_roles
from circuits.tasks.sources.readers import read_prompts


def pairs_of(clean: list[list[int]], corrupt: list[list[int]]) -> PromptPairs:
    return PromptPairs.from_tokens(50, clean=clean, corrupt=corrupt, answers=[40] * len(clean), distractors=[41] * len(clean))


UNEVEN = pairs_of([[1, 5, 2, 3, 9], [4, 1, 5, 3, 2, 2, 9]], [[1, 6, 2, 3, 9], [4, 1, 7, 3, 2, 2, 9]])


def test_prompts_of_different_lengths_align_by_role() -> None:
    pairs = with_roles(UNEVEN, {"name": UNEVEN.clean.ids == 5, "verb": UNEVEN.clean.ids == 3})
    assert pairs.roles.names == ("start", "name", "before_verb", "verb", "before_end", "end")
    rows = [[pairs.roles.names[place] for place in row if place >= 0] for row in pairs.roles.columns.tolist()]
    assert rows[0] == ["start", "name", "before_verb", "verb", "end"]
    assert rows[1] == ["start", "start", "name", "verb", "before_end", "before_end", "end"]
    assert torch.equal(pairs.roles.columns >= 0, pairs.clean.mask), "roles part the tokens, and pads have none"
    assert pairs[[1]].roles.columns.tolist() == pairs.roles.columns[[1]].tolist()


def test_roles_look_at_what_stands_before_them_in_some_prompt() -> None:
    pairs = with_roles(UNEVEN, {"name": UNEVEN.clean.ids == 5, "verb": UNEVEN.clean.ids == 3})
    names, looks = pairs.roles.names, pairs.roles.roles.looks
    assert [names[place] for place in looks[names.index("name")]] == ["start", "name"]
    assert looks[names.index("end")] == tuple(range(len(names)))
    both = with_roles(UNEVEN, {"name": UNEVEN.clean.ids == 5}, causal=False)
    assert all(len(seen) == len(both.roles.names) for seen in both.roles.roles.looks)


def test_roles_are_found_where_nobody_names_them() -> None:
    assert with_roles(UNEVEN).roles.names == ("start", "changed_1", "before_end", "end")
    again = pairs_of([[9, 5, 2, 9], [3, 9, 5, 9]], [[9, 6, 2, 9], [3, 9, 6, 9]])
    assert with_roles(again).roles.names == ("start", "same_as_end", "changed_1", "before_end", "end")


def test_a_prompt_without_a_role_is_named() -> None:
    with pytest.raises(PromptError, match=r"prompt 0 .*no token of it has the role x, which 1 of the others have"):
        with_roles(UNEVEN, {"x": UNEVEN.clean.ids == 4})
    five = UNEVEN.clean.ids == 5
    with pytest.raises(PromptError, match="all tokens of the role a have another one"):
        with_roles(UNEVEN, {"a": five, "b": five})
    for taken in ({"start": five, "x": UNEVEN.clean.ids == 3}, {"before_x": five, "x": UNEVEN.clean.ids == 3}):
        with pytest.raises(PromptError, match="is what lies between others here"):
            with_roles(UNEVEN, taken)
    with pytest.raises(PromptError, match=r"prompt 0 .*the role end is the token at which the answer is read"):
        with_roles(UNEVEN, {"end": five})
    assert "end" in with_roles(UNEVEN, {"end": UNEVEN.clean.ids == 9, "x": five}).roles.names
    with pytest.raises(GraphError, match="'a b' is no name of a role"):
        with_roles(UNEVEN, {"a b": UNEVEN.clean.ids == 5})


@pytest.mark.parametrize("name", TASKS)
def test_every_task_has_roles(name: str) -> None:
    model = load_model("mini")
    pairs = required_roles(TASKS[name].pairs(model, 6, 0))
    assert pairs.roles is not None and pairs.roles.names[-1] == "end" and 3 <= len(pairs.roles.names) <= 40
    assert torch.equal(pairs.roles.columns >= 0, pairs.clean.mask)
    rows = torch.arange(len(pairs))
    assert (pairs.roles.columns[rows, pairs.answer_columns] == len(pairs.roles.names) - 1).all()
    assert set(role_tokens(model, pairs)) == set(pairs.roles.names)


def test_counts_of_a_graph_with_roles_are_its_lists() -> None:
    roles = Roles(("a", "b", "end"), ((0, 1), (0, 1), (0, 1, 2)))
    for groups, parallel in ((1, False), (2, True)):
        shape = {"n_layers": 2, "n_heads": 2, "n_key_value_heads": groups, "d_mlp": 3, "parallel": parallel}
        graph = Graph(**shape, roles=roles)
        assert graph.edge_count == len(set(graph.edges())) and graph.node_count == len(set(graph.nodes()))
        assert graph != Graph(**shape) and graph == Graph(**shape, roles=dataclasses.replace(roles))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a0.h0", "needs a role: write @ and one of a, end"),
        ("a0.h0@x", "no role 'x': there are a, end"),
        ("logits@a", "the answer is read at end alone"),
        ("input@end->a0.h0@a<k>", "queries at a never look at end"),
        ("input@a->m0@end", "from role to role there are edges into keys and values alone"),
        ("input->m0@end", "one of its ends has a role"),
    ],
)
def test_names_that_are_none_say_why(name: str, said: str) -> None:
    graph = Graph(n_layers=1, n_heads=1, n_key_value_heads=1, d_mlp=3, roles=Roles.causal("a", "end"))
    with pytest.raises(CircuitsError, match=said.replace("(", r"\(")):
        graph.edge(name) if "->" in name else graph.node(name)


def rows_file(path: Path, roles: list[object]) -> Path:
    prompts = ["When Mary and John came, John gave a book to", "Yesterday when Mary and John came, John gave a book to"]
    rows = [
        {"clean": text, "corrupt": text.replace("Mary", "Jack"), "answers": [" Mary"], "wrong_answers": [" John"]}
        for text in prompts
    ]
    for row, given in zip(rows, roles, strict=True):
        row |= {} if given is None else {"roles": given}
    path.write_text(json.dumps({"prompts": rows}))
    return path


NAMED = {"IO": "Mary", "S1": ["John", 1], "S2": ["John", 2]}


def test_prompt_files_name_roles_by_words(tmp_path: Path) -> None:
    model = load_model("mini")
    pairs = read_prompts(rows_file(tmp_path / "rows.json", [NAMED, NAMED]), model).pairs
    assert pairs.roles.names == ("start", "IO", "before_S1", "S1", "before_S2", "S2", "before_end", "end")
    tokens = role_tokens(model, pairs)
    assert [tokens[name].strip() for name in ("IO", "S1", "S2")] == ["Mary", "John", "John"]
    table = tmp_path / "rows.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["clean", "corrupted", "label", "roles"])
        text = "When Mary and John came, John gave a book to"
        writer.writerow([text, text.replace("Mary", "Jack"), '[" Mary", " John"]', json.dumps(NAMED)])
    assert read_prompts(table, model).pairs.roles.names == pairs.roles.names


@pytest.mark.parametrize(
    ("roles", "said"),
    [
        ([NAMED, None], "has no role 'IO', which other rows have"),
        ([NAMED, {**NAMED, "IO": "Peter"}], "the subject 'Peter' is not in it"),
        ([NAMED, {**NAMED, "S2": ["John", 3]}], "'John' is in it 2 times, not 3"),
        ([NAMED, {**NAMED, "S2": 3}], "role 'S2' is 3; expected words of the prompt"),
        ([{"a b": "Mary"}, {"a b": "Mary"}], "'a b' is no name of a role"),
    ],
)
def test_roles_of_prompt_files_that_do_not_fit_are_refused(tmp_path: Path, roles: list[object], said: str) -> None:
    with pytest.raises(FileFormatError, match=re.escape(said)):
        read_prompts(rows_file(tmp_path / "rows.json", roles), load_model("mini"))
