"""Whose logits are asked for: prompts with the column that is read, answers and distractors as token ids."""

import dataclasses
from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from circuits.errors import PromptError, shown
from circuits.models import Model, TokenBatch
from circuits.models.model import Prompts
from circuits.tasks import PromptPairs
from circuits.tasks.answers import answer_ids

Target = str | int | Sequence[str | int] | Int[Tensor, " answer"]


@dataclasses.dataclass(frozen=True, eq=False)
class Readout:
    """Prompts, the column at which each is read, and the tokens asked about (None: the model's own top token, none)."""

    tokens: TokenBatch
    columns: Int[Tensor, " prompt"]
    answers: Int[Tensor, " prompt"] | None
    distractors: Int[Tensor, " prompt"] | None

    def __getitem__(self, rows: slice) -> "Readout":
        parts = [None if part is None else part[rows] for part in (self.answers, self.distractors)]
        return Readout(self.tokens[rows], self.columns[rows], parts[0], parts[1])


def ask(model: Model, prompts: PromptPairs | Prompts, answers: Target | None, distractors: Target | None, side: str) -> Readout:
    """Prompts and answers in whatever form as one record. Raises PromptError for those that do not fit each other."""
    if side not in ("clean", "corrupt"):
        raise PromptError(f"side={shown(side)}: expected clean or corrupt")
    if isinstance(prompts, PromptPairs):
        if answers is not None or distractors is not None:
            raise PromptError("the pairs have answers and distractors of their own: leave these out, or pass pairs.clean")
        pairs = prompts.to(model.device)
        tokens = model.prepare(pairs.clean if side == "clean" else pairs.corrupt)
        return Readout(tokens, pairs.answer_columns, pairs.answers, pairs.distractors)
    if side == "corrupt":
        raise PromptError('side="corrupt" is for clean/corrupt pairs; these prompts have no corrupt side')
    tokens = model.prepare(prompts)
    texts = prompts_of(prompts, tokens)
    targets = [token_ids(model, part, texts, what) for part, what in ((answers, "answers"), (distractors, "distractors"))]
    if targets[0] is not None and targets[1] is not None and bool((same := targets[0] == targets[1]).any()):
        raise PromptError(f"prompt {int(same.long().argmax())}: answer and distractor are the same token; they must differ")
    return Readout(tokens, tokens.last, *targets)


def prompts_of(prompts: Prompts, tokens: TokenBatch) -> list[str | list[int]]:
    """Each prompt's text where it was given as one, else its token ids without pads."""
    if isinstance(prompts, str):
        return [prompts]
    if isinstance(prompts, list):
        return [*prompts]
    return [ids[mask].tolist() for ids, mask in zip(tokens.ids.cpu(), tokens.mask.cpu(), strict=True)]


def token_ids(
    model: Model, given: Target | None, prompts: Sequence[str | list[int]], what: str
) -> Int[Tensor, " prompt"] | None:
    """Token ids of answers or distractors, one a prompt: of a text that which would follow the prompt."""
    if given is None:
        return None
    count = len(prompts)
    listed = given.tolist() if isinstance(given, Tensor) else [given] * count if isinstance(given, str | int) else list(given)
    if len(listed) != count:
        raise PromptError(f"{len(listed)} {what} for {count} prompts: give one a prompt, or one for all")
    ids, size = answer_ids(model, listed, prompts, what=what.removesuffix("s")), model.weights.W_U.shape[1]
    outside = next((one for one in ids if not 0 <= one < size), None)
    if outside is not None:
        raise PromptError(f"{what}: token id {shown(outside)} is outside the vocabulary of {size} of {model.name}")
    return torch.tensor(ids, device=model.device)
