"""What a model knows, by typed prompts and by trained ones, beside what trained prompts find where nothing is known."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from circuits.errors import PromptError
from circuits.models import Model
from circuits.models.planted import PlantedFact
from circuits.models.random_weights import with_random_embeddings, with_random_weights
from circuits.probes.prompts.asking import Relation, asked_relations
from circuits.probes.prompts.results import KINDS, UNASKED, PromptProbes
from circuits.probes.prompts.training import Asker, train_vectors
from circuits.progress import Found, Progress, heard, silent
from circuits.runs import shards
from circuits.tasks.sources.facts import Fact


def probe_prompts(
    model: Model,
    facts: Sequence[Fact] | Sequence[PlantedFact],
    *,
    count: int | None = None,
    vectors: int = 5,
    epochs: int = 40,
    seeds: int = 3,
    random_models: bool = True,
    progress: Progress | None = None,
    found: Found | None = None,
) -> PromptProbes:
    """How many facts a model completes when asked by the typed prompt (LAMA, Petroni et al. 2019) and by vectors trained in the
    space of its embeddings, which stand between the subject and the place of the answer (OptiPrompt, Zhong et al. 2021).

    Of each relation half of the facts is trained on, a fifth says when to stop, and the rest is judged on, drawn anew by each
    seed; all kinds of prompts are judged on the same facts. Answers are restricted to the first tokens of the relation's
    objects. Vectors can also learn a relation's frequent objects by heart: beside them stand the most frequent one, and vectors
    trained likewise on the same architecture with random weights and on the model with random embeddings, which know nothing.

    Raises PromptError where no relation is left and for numbers below 1, ModelError for texts where there is no tokenizer.

    Args:
        model: what is asked; it stays as it is.
        facts: as `circuits.tasks.read_facts` and `mini_facts` have them, or a planted model's.
        count: facts of a relation at most (default: all).
        vectors: how many are trained.
        epochs: how often each fact is trained on at most.
        seeds: how many times facts are split and vectors drawn.
        random_models: whether random weights and random embeddings are asked too.
        progress: hears what is being done, how much of it is done, and how much there is.
        found: hears the result so far, when the model itself has been asked.
    """
    if min(vectors, epochs, seeds) < 1:
        raise PromptError(f"vectors={vectors}, epochs={epochs}, seeds={seeds}: expected at least 1 of each")
    tell, report = heard(found), progress or silent
    relations, left_out = asked_relations(model, facts, count=count, seed=0, longest=vectors)
    starts = [0]
    for one in relations:
        starts.append(starts[-1] + len(one.facts))
    right = torch.full((len(KINDS), starts[-1], seeds), UNASKED)
    how: dict[str, Any] = {"vectors": vectors, "epochs": epochs}

    def result() -> PromptProbes:
        """What is found so far."""
        return _result(model, relations, right.clone(), left_out, seeds=tuple(range(seeds)), **how)

    def ask(kind: str, asked: Model) -> None:
        """Train vectors on a model, relation by relation, and judge them."""
        what = f"training prompts, {kind}"
        report(what, 0, len(relations))
        found = shards(what, len(relations), lambda place: _trained(asked, relations[place], seeds, **how))
        for done, told in enumerate(found):
            right[KINDS.index(kind), starts[done] : starts[done + 1]] = told
            report(what, done + 1, len(relations))

    for start, relation in zip(starts, relations, strict=False):
        own = slice(start, start + len(relation.facts))
        right[KINDS.index("typed"), own], right[KINDS.index("majority"), own] = _untrained(model, relation, seeds)
    ask("trained", model)
    if random_models:
        tell(result())
        ask("random weights", with_random_weights(model))
        ask("random embeddings", with_random_embeddings(model))
    return result()


def _untrained(model: Model, relation: Relation, seeds: int) -> tuple[Tensor, Tensor]:
    """What the typed prompt gets right, and the object that most facts of the training part have; `[fact seed]`."""
    rows, answers = [fact.typed for fact in relation.facts], torch.tensor(relation.answers)
    told = Asker.of(model, rows, relation.objects).answers(rows).argmax(dim=1).cpu() == answers
    typed, majority = (torch.full((len(rows), seeds), UNASKED) for _ in range(2))
    for seed in range(seeds):
        split = relation.split(seed)
        judge = split["judge"]
        often = Counter(relation.answers[fact] for fact in (*split["train"], *split["stop"])).most_common(1)[0][0]
        typed[judge, seed], majority[judge, seed] = told[judge].long(), (answers[judge] == often).long()
    return typed, majority


def _trained(model: Model, relation: Relation, seeds: int, *, vectors: int, epochs: int) -> Int[Tensor, "fact seed"]:
    """What trained vectors get right."""
    rows, answers = [fact.alone for fact in relation.facts], torch.tensor(relation.answers)
    asker, right = Asker.of(model, rows, relation.objects), torch.full((len(rows), seeds), UNASKED)
    for seed in range(seeds):
        split = relation.split(seed)
        train, stop, judge = ([rows[fact] for fact in split[part]] for part in ("train", "stop", "judge"))
        numbers = (answers[split["train"]], answers[split["stop"]])
        V = train_vectors(asker, train, numbers[0], stop, numbers[1], vectors=vectors, epochs=epochs, seed=seed)
        told = asker.answers(judge, V).argmax(dim=1).cpu()
        right[split["judge"], seed] = (told == answers[split["judge"]]).long()
    return right


def _result(
    model: Model, relations: Iterable[Relation], right: Tensor, left_out: dict[str, int], *, seeds: tuple[int, ...], **how: Any
) -> PromptProbes:
    relations = list(relations)
    facts = [(place, fact) for place, relation in enumerate(relations) for fact in relation.facts]
    return PromptProbes(
        model=model.name,
        weights_sha256=model.fingerprint,
        relations=tuple(relation.name for relation in relations),
        objects=tuple(len(relation.objects) for relation in relations),
        seeds=seeds,
        subjects=tuple(fact.subject for _, fact in facts),
        attributes=tuple(fact.object for _, fact in facts),
        relation_of=torch.tensor([place for place, _ in facts]),
        right=right,
        left_out={why: number for why, number in left_out.items() if number},
        **how,
    )
