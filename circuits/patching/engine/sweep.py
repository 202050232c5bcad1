"""The engine: a list of variants of one base run, evaluated together.

Every variant starts from the base run at its own layer and first position, rides with the others on one batch axis, and
only what the metric reads is computed in the last layer and unembedded.
"""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.errors import NonFiniteError, PromptError
from circuits.models import Model, Run
from circuits.models.memory import BUDGET
from circuits.patching.engine.base import Base
from circuits.patching.engine.change import Variant
from circuits.patching.engine.plan import passes, plan
from circuits.patching.engine.reading import VOCABULARY, Reading
from circuits.patching.engine.stream import StreamBlock
from circuits.patching.engine.variant_pass import Pass
from circuits.progress import Progress, silent
from circuits.runs import shards


class Sweep:
    """Variants of one base run. `run` holds the base run's factors, which serve every variant; nothing is written to the
    model. Raises NonFiniteError, with the first site, for a base run that holds NaN or infinity."""

    def __init__(
        self, model: Model, run: Run, reading: Reading, *, budget: int = BUDGET, freeze_patterns: bool = False
    ) -> None:
        if reading.columns.shape[0] != len(run.tokens):
            raise PromptError(f"{reading.columns.shape[0]} rows of columns to read for {len(run.tokens)} prompts")
        self.base, self.reading, self.budget, self.freeze_patterns = Base(model, run), reading, budget, freeze_patterns

    def base_scores(self) -> Float[Tensor, " prompt"]:
        """The metric on the base run itself."""
        run = self.base.run
        return self.reading.scores(run.weights, self.reading.at_columns(run.residuals[-1])[None])[0]

    @torch.no_grad()
    def evaluate(
        self, variants: Sequence[Variant], *, progress: Progress | None = None, what: str = "patching"
    ) -> Float[Tensor, "variant prompt"]:
        """The metric of every variant, on every prompt. Raises NonFiniteError where one of them is not a number, and
        MemoryBudgetError, before anything is computed, where a single variant does not fit the budget."""
        report = progress or silent
        base, tokens = self.base.run, self.base.run.tokens
        for change in {change for variant in variants for change in variant}:
            change.require_finite()
        # Variants that cannot reach what is read keep the base's own numbers, bit by bit, without a run.
        own = self.base_scores()
        scores = own.expand(len(variants), *own.shape).clone()
        planned = plan(variants, base.weights, tokens, self.reading.columns)
        groups = passes(planned, base.weights, tokens, self.budget)
        carrier = Pass(self.base, self.reading.columns, freeze_patterns=self.freeze_patterns)
        done = len(variants) - len(planned)
        report(what, done, len(variants))

        def found(place: int) -> Tensor:
            """The scores of the variants of one pass."""
            self._store(carrier.run(groups[place]), scores)
            return scores[[variant.index for variant in groups[place]]]

        for group, values in zip(groups, shards(what, len(groups), found), strict=True):
            scores[[variant.index for variant in group]] = values.to(scores)
            done += len(group)
            report(what, done, len(variants))
        self._refuse_non_finite(variants, scores)
        return scores

    def evaluate_parts(
        self, parts: Iterable[Sequence[Variant]], total: int, *, progress: Progress | None = None, what: str = "patching"
    ) -> Float[Tensor, "variant prompt"]:
        """`evaluate` for variants that are made part by part, `total` in all, so that not all values are held at once."""
        report = progress or silent
        found: list[Tensor] = []
        done = 0
        for part in parts:
            found.append(self.evaluate(part, progress=lambda _, n, __, done=done: report(what, done + n, total)))
            done += len(part)
        return torch.cat(found)

    def _store(self, blocks: Sequence[StreamBlock], scores: Tensor) -> None:
        # Streams of all blocks together: unembedding few rows costs nearly what unembedding many does, for the weights are read
        # anew. A pass holds streams; their logits are d_vocab / d_model times larger, so that they are made for some at a time.
        streams, x = [stream for block in blocks for stream in block.streams], torch.cat([block.x for block in blocks])
        at_once = max(1, self.budget // (4 * self._logit_bytes()))
        for start in range(0, len(streams), at_once):
            found = self.reading.scores(self.base.run.weights, x[start : start + at_once])
            for stream, score in zip(streams[start : start + at_once], found, strict=True):
                for variant in stream.variants:
                    scores[variant.index] = score

    def _logit_bytes(self) -> int:
        """Bytes of one variant's logits, in the format in which metrics read them."""
        vocabulary, tokens = self.base.run.weights.W_U.shape[1], self.reading.tokens
        wanted = vocabulary if tokens is None else tokens.shape[1]
        wanted = max(wanted, min(vocabulary, VOCABULARY)) if self.reading.normalised else wanted
        return max(4, self.base.run.logits.element_size()) * self.reading.columns.numel() * wanted

    def _refuse_non_finite(self, variants: Sequence[Variant], scores: Tensor) -> None:
        bad = (~scores.isfinite()).nonzero()
        if len(bad):
            variant, prompt = bad[0].tolist()
            found = plan([variants[variant]], self.base.run.weights, self.base.run.tokens, self.reading.columns)
            if found:  # once more, looking at every site
                Pass(self.base, self.reading.columns, freeze_patterns=self.freeze_patterns, watch=True).run(found)
            sites = ", ".join(change.name for change in variants[variant]) or "no change"
            raise NonFiniteError(f"the metric is {float(scores[variant, prompt])} on prompt {prompt} with {sites} patched")
