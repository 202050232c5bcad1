"""Pairs of prompts for models with a planted circuit, in which each edge of it carries what decides the answer.

Every pair is a symmetric token replacement: both prompts are of the task, and the corrupt one calls for the distractor.
The pairs take turns in what is replaced: what a head looks for (its query), where that stands (its keys), and what stands
there (its values).
"""

import dataclasses
import itertools
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Literal

import torch
from torch import Tensor

from circuits.errors import PromptError
from circuits.graph import Circuit, Edge, Reader
from circuits.models import Model, Run, node_output
from circuits.models.planted import (
    HopWords,
    OperandWords,
    Planted,
    planted_chain,
    planted_gate,
    planted_induction,
    planted_or,
    planted_recall,
)
from circuits.models.weights import Norm
from circuits.tasks.library.facts import planted_pairs
from circuits.tasks.prompts import PromptPairs
from circuits.tasks.roles import with_roles

Slot = Literal["q", "k", "v"]
Case = tuple[list[int], list[int], int, int]
"""A clean prompt, a corrupt one, the answer, the distractor."""
_MAKERS: dict[str, Callable[..., Planted]] = {
    "induction": planted_induction,
    "recall": planted_recall,
    "gate": planted_gate,
    "or": planted_or,
    "chain": planted_chain,
}


def planted_task(name: str, seed: int = 0, *, count: int = 36) -> tuple[Planted, PromptPairs]:
    """A planted model and `count` pairs of its task: "induction", "recall", "gate", "or" or "chain". Raises KeyError for
    another name."""
    if name not in _MAKERS:
        raise KeyError(f"no planted task {name!r}; expected one of {', '.join(_MAKERS)}")
    planted = _MAKERS[name](seed=seed)
    if name == "induction":
        return planted, _pairs(planted.model, _induction_cases(planted.model, random.Random(seed)), count)
    if name == "recall":
        return planted, _pairs(planted.model, _recall_cases(planted, random.Random(seed)), count)
    return planted, planted_logic_pairs(planted, count=count, seed=seed)


def planted_logic_pairs(planted: Planted, count: int = 36, seed: int = 0) -> PromptPairs:
    """Pairs for a model made by `planted_gate`, `planted_or` or `planted_chain` (or any with such words).

    Gate: one operand's bit changes or the other's or both, clean prompts are true and false by turns. Or: both bits are 1
    in the clean prompts and 0 in the corrupt ones, so that the two ways hide each other. Chain: one hop is led astray.
    Raises PromptError for a model without such words.
    """
    draw, words = random.Random(seed), planted.words
    if isinstance(words, HopWords):
        return hop_pairs(words, count, seed)
    if isinstance(words, OperandWords):
        return _pairs(planted.model, _operand_cases(words, draw, either=bool(planted.redundant)), count)
    raise PromptError(f"{planted.model.name} has no words for logic; expected a model of planted_gate, _or or _chain")


def hop_pairs(words: HopWords, count: int = 36, seed: int = 0) -> PromptPairs:
    """Pairs in which a content comes by hops to the last token, for any model with these words."""
    return _pairs(words.d_vocab, _hop_cases(words, random.Random(seed)), count)


def carrying(planted: Planted, pairs: PromptPairs, *, neurons: bool = False, tolerance: float = 0.1) -> Circuit:
    """The planted circuit's edges that any patching method could find on these pairs.

    An edge is left out where its reader's weights read the same from the writer's output in the clean run and in the
    corrupt one, at every position of every pair, but for `tolerance` of the most that this reader reads from any writer of
    the circuit: such an edge (a query that reads a position, a flag raised in both, a backup silent in both) carries no
    difference, so replacing what it carries does nothing, whatever it is for. The tolerance is for norms, whose scales
    move a little with what nobody reads (up to 0.06 in recall; edges that do carry are above 0.4); gains count, scales not.
    The graph is that of whole MLPs, or of single neurons (`neurons=True`) where the circuit has them.
    """
    circuit, model = (planted.circuit if neurons else planted.whole), planted.model
    clean, corrupt = model.run(pairs.clean), model.run(pairs.corrupt)
    mask = pairs.clean.mask[:, :, None]
    changes: dict[Edge, float] = {}
    largest: dict[str, float] = {}
    for edge in circuit.edges:
        read = _reading_weights(model, edge)
        there, here = (node_output(run, edge.writer) @ read * mask for run in (clean, corrupt))
        changes[edge] = float((there - here).abs().max())
        most = float(torch.maximum(there.abs(), here.abs()).max())
        largest[str(edge.target)] = max(most, largest.get(str(edge.target), 0.0))
    return circuit.restricted([edge for edge, change in changes.items() if change > tolerance * largest[str(edge.target)]])


def carrying_roles(planted: Planted, pairs: PromptPairs, *, tolerance: float = 0.1) -> Circuit:
    """`carrying` between the roles that the pairs have: of its edges those at whose writer's role the two runs differ by more
    than the tolerance and, into keys and values, where some query of the reader's role looks at a token of the writer's by more
    than that: into keys in one of the two runs, into values in the clean one, since other values at tokens that are not looked
    at move nothing. All on paths from the input to the logits."""
    assert pairs.roles is not None
    graph, model = planted.model.graph(roles=pairs.roles.roles), planted.model
    runs = [model.run(pairs.clean), model.run(pairs.corrupt)]
    masks = dict(zip(pairs.roles.names, pairs.roles.masks(), strict=True))
    plain = carrying(planted, pairs, tolerance=tolerance)
    most: dict[str, float] = {}
    found: dict[Edge, float] = {}
    for edge in planted.whole.edges:
        read = _reading_weights(model, edge)
        there, here = (node_output(run, edge.writer) @ read for run in runs)
        size = torch.maximum(there.abs(), here.abs()) * pairs.clean.mask[:, :, None]
        most[str(edge.target)] = max(float(size.max()), most.get(str(edge.target), 0.0))
        for role in masks if edge in plain.edges else ():
            change = float(((there - here).abs() * masks[role][:, :, None]).max())
            for query in masks if edge.slot in ("k", "v") else (role,):
                ends = (dataclasses.replace(edge.writer, at=role), dataclasses.replace(edge.reader, at=query))
                if (
                    change
                    and graph.has_edge(f"{ends[0]}->{Reader(ends[1], edge.slot)}")
                    and _looks(runs, edge, masks, query, role, tolerance)
                ):
                    found[Edge(*ends, edge.slot)] = change
    kept = [edge for edge, change in found.items() if change > tolerance * most[str(Reader(edge.reader.everywhere, edge.slot))]]
    return Circuit(graph, kept).connected()


def _looks(runs: list[Run], edge: Edge, masks: Mapping[str, Tensor], query: str, key: str, tolerance: float) -> bool:
    """Whether queries of one role look at tokens of another, in any of these runs, where the edge runs into keys or values."""
    if edge.slot not in ("k", "v"):
        return True
    between = masks[query][:, :, None] & masks[key][:, None, :]
    some = runs if edge.slot == "k" else runs[:1]
    patterns = [run.pattern(edge.reader.layer or 0)[:, edge.reader.index or 0] for run in some]
    return any(float((pattern * between).max()) > tolerance for pattern in patterns)


def planted_roles(name: str, pairs: PromptPairs) -> PromptPairs:
    """The pairs of `planted_task(name)` with the roles of its tokens. Induction: the token `asked` for, the `answer` behind it,
    the `other` token that could be asked for and what is behind that, `wrong`. Recall: `subject` and `subject_last`; the
    relation is `end`. Raises KeyError for another name."""
    if name == "recall":
        first = torch.full_like(pairs.answer_columns, 1)
        return with_roles(dataclasses.replace(pairs, positions={"subject_first": first, "subject_last": first + 1}))
    if name != "induction":
        raise KeyError(f"no roles for the planted task {name!r}; expected induction or recall")
    ids = pairs.clean.ids
    answer, wrong = (ids == token[:, None] for token in (pairs.answers, pairs.distractors))
    spans = {"asked": answer.roll(-1, 1), "answer": answer, "other": wrong.roll(-1, 1), "wrong": wrong}
    return with_roles(pairs, spans)


def _reading_weights(model: Model, edge: Edge) -> Tensor:
    """What an edge's reader multiplies the residual stream by `[d_model read]`."""
    reader = edge.reader
    if reader.layer is None:
        return _gained(model.weights.W_U, model.weights.final_norm)
    block = model.weights.blocks[reader.layer]
    if reader.kind == "head":
        matrix = block.attention.per_head(f"W_{(edge.slot or 'q').upper()}")[reader.index or 0]  # type: ignore[arg-type]
        return _gained(matrix, block.attention_norm)
    assert block.mlp is not None
    matrix = block.mlp.W_in if reader.index is None else block.mlp.W_in[:, reader.index, None]
    return _gained(matrix, block.mlp_norm)


def _gained(matrix: Tensor, norm: Norm | None) -> Tensor:
    return matrix if norm is None or norm.weight is None else norm.weight[:, None] * matrix


def _pairs(vocabulary: Model | int, cases: Iterator[Case], count: int) -> PromptPairs:
    clean, corrupt, answers, distractors = zip(*itertools.islice(cases, count), strict=True)
    return PromptPairs.from_tokens(vocabulary, clean=clean, corrupt=corrupt, answers=answers, distractors=distractors)


def _operand_cases(words: OperandWords, draw: random.Random, *, either: bool) -> Iterator[Case]:
    turns = [((0, 1),)] if either else [((0,), (1,), (0, 1))]
    kinds = itertools.product((False,) if either else (False, True), *turns, "qkv")
    for backwards, changed, slot in itertools.cycle(kinds):
        true, false = _operand_prompts(words, draw, changed, slot)  # type: ignore[arg-type]
        yield (false, true, words.no, words.yes) if backwards else (true, false, words.yes, words.no)


def _operand_prompts(
    words: OperandWords, draw: random.Random, changed: tuple[int, ...], slot: Slot
) -> tuple[list[int], list[int]]:
    """A prompt in which both bits asked for are 1, and one in which those of the `changed` operands are 0."""
    asked = [draw.randrange(2), draw.randrange(2)]
    tokens, replaced = [], []
    for operand, label in itertools.product((0, 1), (0, 1)):
        bit = int(label == asked[operand]) if operand in changed or label == asked[operand] else draw.randrange(2)
        variant, now = draw.randrange(words.variants), operand in changed
        tokens.append(words.operand(operand, label, bit, variant))
        other_bit = 0 if now and slot == "v" and label == asked[operand] else bit
        other_label = 1 - label if now and slot == "k" else label
        replaced.append(words.operand(operand, other_label, other_bit, variant))
    fillers = draw.choices(words.filler_ids, k=3)
    order = draw.sample(range(7), 7)
    asks_other = [1 - label if operand in changed and slot == "q" else label for operand, label in enumerate(asked)]
    both = (tokens, asked), (replaced, asks_other)
    rows = [[0, *([*found, *fillers][place] for place in order), words.query(*asks)] for found, asks in both]
    return rows[0], rows[1]


def _hop_cases(words: HopWords, draw: random.Random) -> Iterator[Case]:
    """Two contents that follow two ways by crossed or straight hops; the replacement crosses one of these."""
    for hop, slot in itertools.cycle([(0, "v"), *itertools.product(range(words.hops), "qk")]):
        contents = draw.sample(range(words.contents), 2)
        labels, wants = ([draw.randrange(2) for _ in range(words.hops)] for _ in range(2))
        order = [draw.randrange(2) for _ in range(words.hops)]
        fillers = draw.choices(words.filler_ids, k=words.hops)
        clean, answer = _hop_prompt(words, contents, labels, wants, order, fillers)
        if slot == "v":
            contents = contents[::-1]
        else:
            turned = wants if slot == "q" else labels
            turned[hop] = 1 - turned[hop]
        corrupt, distractor = _hop_prompt(words, contents, labels, wants, order, fillers)
        yield clean, corrupt, words.answer(answer), words.answer(distractor)


def _hop_prompt(
    words: HopWords, contents: list[int], labels: list[int], wants: list[int], order: list[int], fillers: list[int]
) -> tuple[list[int], int]:
    """The prompt, and the content that reaches its end. For each hop: the label of the first of the two tokens it chooses
    from, what the first of its own two markers wants, which of the choices stands first, and a filler."""
    row, places = [0], list(contents)
    for hop in range(words.hops):
        if hop == 0:
            choices = [words.content(content, labels[0] ^ place) for place, content in enumerate(contents)]
        else:
            wanted = (wants[hop - 1] ^ place for place in (0, 1))
            choices = [words.marker(hop - 1, want, labels[hop] ^ place) for place, want in enumerate(wanted)]
        row += [*(choices if order[hop] == 0 else choices[::-1]), fillers[hop]]
        # The marker in place p wants label wants[hop] ^ p, which the choice in place wants[hop] ^ p ^ labels[hop] has.
        places = [places[wants[hop] ^ place ^ labels[hop]] for place in (0, 1)]
    return [*row, words.marker(words.hops - 1, wants[-1], 0)], places[0]


def _induction_cases(model: Model, draw: random.Random, length: int = 12) -> Iterator[Case]:
    """`… A B … C D … A`, answer B, and with C for the last A, with A and C exchanged before it, or with B and D."""
    for slot in itertools.cycle("qkv"):
        segment = draw.sample(range(1, model.d_vocab), length)
        first, second = sorted(draw.sample(range(1, length - 1, 2), 2))
        if draw.randrange(2):
            first, second = second, first
        replaced, last = list(segment), segment[first]
        if slot != "q":
            here, there = (place + (slot == "v") for place in (first, second))
            replaced[here], replaced[there] = segment[there], segment[here]
        asked = segment[second] if slot == "q" else last
        yield [0, *segment, last], [0, *replaced, asked], segment[first + 1], segment[second + 1]


def _recall_cases(planted: Planted, draw: random.Random) -> Iterator[Case]:
    """Another subject and another relation by turns."""
    pairs = planted_pairs(planted, seed=draw.randrange(2**31))
    columns = (pairs.clean.ids, pairs.corrupt.ids, pairs.answers, pairs.distractors)
    subjects = list(zip(*(column.tolist() for column in columns), strict=True))
    while True:
        draw.shuffle(subjects)
        for subject in subjects:
            yield subject
            fact = draw.choice(planted.facts)
            others = [other for other in planted.facts if other.subject == fact.subject and other.answer != fact.answer]
            if others:
                other = draw.choice(others)
                yield fact.prompt, other.prompt, fact.answer, other.answer
