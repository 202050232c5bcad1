"""How an edit is scored: the same prompts asked of the model before and after it."""

import dataclasses
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.models import Model, WeightEdit
from circuits.models.forward import forward
from circuits.models.memory import BUDGET, prompts_at_once
from circuits.models.sampling import sampled
from circuits.models.weight_edits import edited_weights
from circuits.models.weights import Weights
from circuits.tasks.answers import first_of, one_token
from circuits.tasks.rewrites import Rewrite
from circuits.uses.editing.lookups import ESSENCE
from circuits.uses.editing.results import EditOutcome, Odds, Written
from circuits.uses.editing.values import NewValue
from circuits.uses.editing.writing import likeness, names, ngram_entropy, rarity


@dataclasses.dataclass(frozen=True)
class WritingTest:
    """What a model is made to write about a subject."""

    length: int = 50
    """Tokens of each text; 0: none is written."""
    reference: tuple[str, ...] = ()
    """Texts; those that name the new answer are what it should come to write like."""
    seed: int = 0


@dataclasses.dataclass(frozen=True, eq=False)
class RewritePrompts:
    """The prompts of a rewrite, edited one first, and for each the tokens of its own answer and of the new one."""

    rewrite: Rewrite
    prompts: tuple[str, ...]
    old: tuple[str, ...]
    tokens: tuple[tuple[int, int], ...]
    paraphrases: int

    @classmethod
    def of(cls, model: Model, rewrite: Rewrite) -> "RewritePrompts":
        """All that is asked of a model. Prompts whose answer shares a token with them are left out, and neighbours whose answer
        begins as the new one does. Raises PromptError for a new answer of several tokens."""
        new = one_token(model, repr(rewrite.prompt), rewrite.prompt, rewrite.new, what="new answer", joined=None)
        asked = [(rewrite.prompt, rewrite.old), *((one, rewrite.old) for one in rewrite.paraphrases), *rewrite.neighbours]
        tokens = [(first_of(model, prompt, old), first_of(model, prompt, rewrite.new)) for prompt, old in asked]
        kept = [place for place, (own, other) in enumerate(tokens) if own != other or place == 0]
        paraphrases = sum(0 < place <= len(rewrite.paraphrases) for place in kept)
        assert tokens[0][1] == new
        return cls(
            rewrite,
            tuple(asked[place][0] for place in kept),
            tuple(asked[place][1] for place in kept),
            tuple(tokens[place] for place in kept),
            paraphrases,
        )


def chances(
    model: Model,
    prompts: Sequence[str],
    tokens: Sequence[tuple[int, int]],
    weights: Weights | None = None,
    *,
    budget: int = BUDGET,
) -> Float[Tensor, "prompt answer"]:
    """The probabilities of tokens behind prompts, with the model's weights or others."""
    weights = model.weights if weights is None else weights
    order = sorted(range(len(prompts)), key=lambda place: len(prompts[place]))
    found = torch.zeros(len(prompts), 2, dtype=torch.float64)
    at_once = prompts_at_once(weights, max(len(prompt) for prompt in prompts), budget=budget)
    for start in range(0, len(order), at_once):
        some = order[start : start + at_once]
        batch = model.prepare([prompts[place] for place in some])
        with torch.no_grad():
            logits = forward(weights, batch, keep="logits", columns=batch.last).logits[:, 0]
        wanted = torch.tensor([tokens[place] for place in some], device=logits.device)
        found[some] = logits.double().cpu().softmax(dim=-1).gather(1, wanted.cpu())
    return found


def outcome_of(
    model: Model,
    asked: RewritePrompts,
    edit: WeightEdit,
    value: NewValue,
    *,
    writing: WritingTest | None = None,
    traced: dict[str, float] | None = None,
    budget: int = BUDGET,
) -> EditOutcome:
    """What an edit does to the prompts of a rewrite, and to what the model writes about its subject.

    Args:
        model: the model without the edit.
        asked: the prompts.
        edit: the edit.
        value: how its value was found.
        writing: what the model is made to write (default: nothing).
        traced: what causal tracing says of the edited layer.
        budget: bytes that a pass may take above the model.
    """
    rewrite, weights = asked.rewrite, edited_weights(model.weights, [edit])
    odds = odds_of(model, asked, weights, budget=budget)
    return EditOutcome(
        rewrite.prompt,
        rewrite.subject,
        rewrite.old,
        rewrite.new,
        rewrite.relation,
        edit.layers[-1],
        value.loss,
        value.steps,
        float(value.change.norm()) / max(float(value.value.norm()), 1e-12),
        odds[0],
        odds[1 : 1 + asked.paraphrases],
        odds[1 + asked.paraphrases :],
        None if writing is None or not writing.length else written(model, rewrite, weights, writing),
        traced,
    )


def odds_of(model: Model, asked: RewritePrompts, weights: Weights, *, budget: int = BUDGET) -> tuple[Odds, ...]:
    """The chances of all prompts of a rewrite, with the model's own weights and with others."""
    before = chances(model, asked.prompts, asked.tokens, budget=budget).tolist()
    after = chances(model, asked.prompts, asked.tokens, weights, budget=budget).tolist()
    rows = zip(asked.prompts, asked.old, before, after, strict=True)
    return tuple(Odds(prompt, old, *one, *other) for prompt, old, one, other in rows)


def written(model: Model, rewrite: Rewrite, weights: Weights, writing: WritingTest) -> Written:
    """What a model writes behind the edited prompt and about its subject, with its own weights and with others; the same is
    drawn of both."""
    prompts = [rewrite.prompt, ESSENCE.format(rewrite.subject)]
    texts = [[_continued(model, prompt, one, writing) for prompt in prompts] for one in (model.weights, weights)]
    fluency = tuple(sum(map(ngram_entropy, some)) / len(some) for some in texts)
    about = [text for text in writing.reference if names(text, rewrite.new)]
    rare = rarity(writing.reference) if about else {}
    like = tuple(likeness(" ".join(some), about, rare) for some in texts) if about else None
    first, second = (some[0] for some in texts)
    return Written(first, second, (fluency[0], fluency[1]), None if like is None else (like[0], like[1]))


def _continued(model: Model, prompt: str, weights: Weights, writing: WritingTest) -> str:
    ids = model.prepare(prompt).ids[0]
    room = writing.length if model.max_positions is None else min(writing.length, model.max_positions - len(ids))
    generator = torch.Generator().manual_seed(writing.seed)
    return model.to_string(sampled(weights, ids, 1, room, generator=generator)[0]) if room > 0 else ""
