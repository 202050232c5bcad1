"""Causal tracing of many facts, for averages like ROME's."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import torch

from circuits.errors import PromptError
from circuits.files.words import counted
from circuits.models import Model, TokenBatch
from circuits.models.memory import BUDGET
from circuits.patching.tracing.causal import KINDS, WHAT, TraceKind, causal_trace, noise_level
from circuits.patching.tracing.results import Trace, Traces
from circuits.progress import Found, Progress, heard, silent
from circuits.runs import Aside, shards
from circuits.tasks.answers import following, spelled
from circuits.tasks.sources.facts import Fact
from circuits.tasks.subjects import subject_columns

SET_ASIDE = "set aside: "
"""How the reason begins of a fact that failed however often it was tried."""


def trace_facts(
    model: Model,
    facts: Sequence[Fact],
    *,
    replacement: str | None = None,
    noise: float | None = None,
    draws: int = 10,
    window: int = 10,
    kinds: Sequence[TraceKind] = KINDS,
    seed: int = 0,
    prepend_bos: bool | None = None,
    budget: int = BUDGET,
    limit: int | None = None,
    progress: Progress | None = None,
    found: Found | None = None,
) -> Traces:
    """Trace the facts that the model knows: those whose attribute is what it says after the prompt, taking the most probable
    token each time (ROME's known facts, whose attributes are one token of its models). What is traced is the first of these
    tokens. All other facts are in `skipped`, each with the reason. Raises PromptError for no facts at all.

    Args:
        model: the model that is traced.
        facts: facts with their prompts, subjects and attributes.
        replacement: as in `causal_trace`, the same for every fact.
        noise: standard deviation of the noise (default: 3 of the token embeddings of all given facts' subjects).
        draws: as in `causal_trace`.
        window: as in `causal_trace`.
        kinds: as in `causal_trace`.
        seed: that of the noise, the same for every fact.
        prepend_bos: as in `causal_trace`.
        budget: bytes that a pass may take above the model and its base runs; a smaller one takes longer and changes nothing.
        limit: stop after so many traced facts.
        progress: hears of facts first, then of cells.
        found: gets the traces so far after each fact.
    """
    report, give = progress or silent, heard(found)
    if not facts or (limit is not None and limit < 1):
        raise PromptError(f"nothing to trace: {len(facts)} facts with a limit of {limit}; expected at least one")
    known, skipped = known_facts(model, facts, prepend_bos, limit, report)
    level = noise_level(model, [fact.subject for fact in facts]) if noise is None and replacement is None else noise
    trace = functools.partial(
        causal_trace,
        model,
        replacement=replacement,
        noise=level,
        draws=draws,
        window=window,
        kinds=kinds,
        seed=seed,
        prepend_bos=prepend_bos,
        budget=budget,
    )
    sizes = [len(kinds) * model.n_layers * tokens for _, tokens in known]

    def traced(place: int) -> dict[str, Any] | str:
        """The trace of a fact, or why there is none."""
        fact, within = known[place][0], functools.partial(_within, report, sizes, place, kinds)
        try:
            one = trace(fact.prompt, subject=fact.subject, progress=within)
        except PromptError as error:
            if replacement is None:
                raise
            return str(error)
        return {field.name: getattr(one, field.name) for field in dataclasses.fields(one)}

    traces, done, cells = list[Trace](), 0, sum(sizes)
    what = f"tracing {counted(len(known), 'fact')}"
    for place, found_there in enumerate(shards(what, len(known), traced, aside=True)):
        done += sizes[place]
        report(what, done, cells)
        if isinstance(found_there, dict):
            traces.append(Trace(**found_there))
            give(Traces(tuple(traces), tuple(skipped)))
        else:
            why = f"{SET_ASIDE}{found_there.why}" if isinstance(found_there, Aside) else found_there
            skipped.append((known[place][0].prompt, why))
    return Traces(tuple(traces), tuple(skipped))


def _within(
    report: Progress, sizes: Sequence[int], place: int, kinds: Sequence[TraceKind], what: str, done: int, total: int
) -> None:
    """One fact's progress, which starts anew for every kind, as progress over the cells of all facts."""
    before = sum(sizes[:place]) + [WHAT[kind] for kind in kinds].index(what) * total
    report(f"tracing {counted(len(sizes), 'fact')}", before + done, sum(sizes))


def known_facts(
    model: Model, facts: Sequence[Fact], bos: bool | None, limit: int | None, report: Progress
) -> tuple[list[tuple[Fact, int]], list[tuple[str, str]]]:
    """The first `limit` facts that the model knows, each with its number of tokens, and the others with the reason."""
    known: list[tuple[Fact, int]] = []
    skipped: list[tuple[str, str]] = []
    stripped = [dataclasses.replace(fact, prompt=fact.prompt.rstrip()) for fact in facts]

    def asked(place: int) -> int | str:
        """The tokens of a fact's prompt, or why it is left out."""
        fact = stripped[place]
        try:
            tokens = model.to_tokens(fact.prompt, prepend_bos=bos)
            subject_columns(model, fact.prompt, fact.subject, tokens)
            other = _other_answer(model, fact, tokens)
        except PromptError as error:
            return str(error)
        return tokens.ids.shape[1] if other is None else f"the model answers {other}, not {fact.attribute.strip()!r}"

    total = len(facts) if limit is None else min(limit, len(facts))
    for place, answer in enumerate(shards("asking the model", len(facts), asked)):
        report("asking the model", place if limit is None else len(known), total)  # it ends with the last that is wanted
        if isinstance(answer, int):
            known.append((stripped[place], answer))
        else:
            skipped.append((facts[place].prompt, answer))
        if len(known) == limit:
            break
    report("asking the model", total, total)
    return known, skipped


def _other_answer(model: Model, fact: Fact, tokens: TokenBatch) -> str | None:
    """What the model says in place of a fact's attribute, where it always takes its most probable token; None where it says
    just that, token by token."""
    wanted = following(model, fact.prompt, spelled(fact.prompt, fact.attribute))
    ids = torch.cat([tokens.ids, tokens.ids.new_tensor([wanted[:-1]])], dim=1)
    with torch.no_grad():
        said = model.run(ids, keep="logits").logits[0, tokens.ids.shape[1] - 1 :].argmax(dim=-1).tolist()
    wrong = next((place for place, token in enumerate(said) if wanted[place : place + 1] != [token]), None)
    if wrong is None:
        return None
    begun = f"{model.to_string(wanted[:wrong]).strip()!r} and goes on with " if wrong else ""
    return f"{begun}{model.to_string(said[wrong : wrong + 1]).strip()!r}"
