"""A classifier on top of a language model: the same graph, with a linear head on the last token in place of the unembedding."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.errors import FileFormatError, ModelError, PromptError, shown
from circuits.files.tensors import load_tensors, save_tensors
from circuits.models import Model, TokenBatch
from circuits.models.forward import forward
from circuits.models.memory import BUDGET
from circuits.progress import Progress, silent

FORMAT = "circuits-classifier"
LONGEST = 128
"""Tokens of a text that are read, at most: its last ones."""
HEAD = ("W_U", "b_U")
"""The head's tensors, where the unembedding stood."""


@dataclasses.dataclass(frozen=True, eq=False)
class ClassifierHead:
    """A saved classifier without its base model: the head, and which base it belongs to. Where all weights were trained, they
    stand in the same file."""

    model: str
    weights_sha256: str
    """Of the base model: the classifier runs on no other."""
    classes: tuple[str, ...]
    W_U: Float[Tensor, "d_model class"]
    b_U: Float[Tensor, " class"]
    longest: int
    bos: bool | None
    tuned: bool
    """Whether all weights were trained, and not the head alone."""
    training: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """How it was trained."""


@dataclasses.dataclass(frozen=True, eq=False)
class Classifier:
    """A model whose logits are those of classes, read at the last token of a text.

    `model` is the language model's graph with the head as its unembedding: whatever the toolkit does to a model (runs, edits,
    attribution, searches) it does to this one, with classes where tokens were answers.
    """

    model: Model = dataclasses.field(repr=False)
    base: str
    """The language model's name."""
    base_sha256: str
    """The language model's fingerprint."""
    classes: tuple[str, ...]
    longest: int = LONGEST
    tuned: bool = False
    """Whether all weights were trained, and not the head alone."""
    training: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """How it was trained."""

    @property
    def summary(self) -> str:
        """On what it stands, and what it tells apart."""
        trained = "all weights trained" if self.tuned else "a linear head"
        return f"classifier on {self.base} ({trained}): {', '.join(self.classes)}."

    @classmethod
    def on(cls, base: Model, classes: Sequence[str], *, longest: int = LONGEST) -> "Classifier":
        """An untrained one: its head says 0 of every class. Raises PromptError for fewer than two classes and for a length that
        the model does not take."""
        if len(set(classes)) < 2 or len(set(classes)) < len(classes):
            raise PromptError(f"classes {', '.join(map(shown, classes))}: expected two or more, each once")
        if longest < 2 or longest > (base.max_positions or longest):
            raise PromptError(f"longest={longest}: expected 2 tokens or more and no more than the model takes")
        head = {
            "W_U": base.weights.W_E.new_zeros(base.d_model, len(classes)),
            "b_U": base.weights.W_E.new_zeros(len(classes)),
        }
        return cls(_headed(base, head), base.name, base.fingerprint, tuple(classes), longest)

    def tokens(self, texts: Sequence[str]) -> TokenBatch:
        """The texts as the classifier reads them: of long ones the last tokens, with what opens a prompt in front. Raises
        PromptError for a text without tokens."""
        return TokenBatch.from_rows(self.rows(texts), pad_id=0).to(self.model.device)

    def rows(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, unpadded."""
        opening = self.model.opening()
        batch = self.model.to_tokens(list(texts))
        rows = [ids[mask].tolist() for ids, mask in zip(batch.ids.cpu(), batch.mask.cpu(), strict=True)]
        keep = self.longest - len(opening)
        return [row if len(row) <= self.longest else [*opening, *row[-keep:]] for row in rows]

    def logits(
        self, texts: Sequence[str], *, budget: int = BUDGET, progress: Progress | None = None
    ) -> Float[Tensor, "text class"]:
        """What it says of each class, before the softmax."""
        return read_ends(self.model, self.rows(texts), what="classifying, in tokens", budget=budget, progress=progress)

    def predict(self, texts: Sequence[str], *, budget: int = BUDGET, progress: Progress | None = None) -> tuple[str, ...]:
        """The class of each text that it takes for the likeliest."""
        return tuple(
            self.classes[place] for place in self.logits(texts, budget=budget, progress=progress).argmax(dim=1).tolist()
        )

    def with_tensors(self, tensors: Mapping[str, Tensor], *, tuned: bool, training: Mapping[str, Any]) -> "Classifier":
        """The same with other weights, by their dotted names (`W_U` and `b_U` are the head's)."""
        weights = self.model.weights.with_tensors(tensors)
        return dataclasses.replace(
            self, model=dataclasses.replace(self.model, weights=weights), tuned=tuned, training=dict(training)
        )

    def save(self, path: str | Path) -> None:
        """Write to a safetensors file, which appears whole or not at all; the base model's weights stand there only where they
        were trained."""
        weights = self.model.weights
        beside = {name: tensor for name, tensor in weights.tensors() if name not in HEAD} if self.tuned else {}
        save_tensors(Path(path), FORMAT, self._record(), beside=beside)

    def _record(self) -> ClassifierHead:
        weights = self.model.weights
        assert weights.b_U is not None
        return ClassifierHead(
            model=self.base,
            weights_sha256=self.base_sha256,
            classes=self.classes,
            W_U=weights.W_U,
            b_U=weights.b_U,
            longest=self.longest,
            bos=self.model.prepend_bos,
            tuned=self.tuned,
            training=self.training,
        )

    @classmethod
    def load(cls, path: str | Path, base: Model) -> "Classifier":
        """A saved classifier on its base model. Raises FileFormatError for another file, ModelError for another base."""
        head, beside = load_tensors(Path(path), FORMAT, ClassifierHead)
        if head.weights_sha256 != base.fingerprint:
            raise ModelError(
                f"{path}: is a classifier on {head.model} (weights {head.weights_sha256[:12]}…), not on {base.name} "
                f"({base.fingerprint[:12]}…): name the model that it was trained on, in the same number format"
            )
        found = cls.on(base.with_bos(head.bos), head.classes, longest=head.longest)
        like = base.weights.W_E
        tensors = {name: tensor.to(like) for name, tensor in {"W_U": head.W_U, "b_U": head.b_U, **beside}.items()}
        if beside and not head.tuned:
            raise FileFormatError(f"{path}: holds tensors that do not belong there: {', '.join(sorted(beside))[:150]}")
        return found.with_tensors(tensors, tuned=head.tuned, training=head.training)


def batches(model: Model, rows: Sequence[Sequence[int]], budget: int) -> Iterator[tuple[list[int], TokenBatch]]:
    """Rows of token ids in batches of similar lengths that fit a budget, each with the rows' places."""
    size = bytes_of_a_token(model)
    order = sorted(range(len(rows)), key=lambda place: len(rows[place]))
    while order:
        # The longest of a batch is its last: as many as fit at that length.
        count = 1
        while count < min(len(order), 512) and (count + 1) * len(rows[order[count]]) * size <= budget:
            count += 1
        some, order = order[:count], order[count:]
        yield some, TokenBatch.from_rows([list(rows[place]) for place in some]).to(model.device)


def bytes_of_a_token(model: Model) -> int:
    """What a token takes on its way through a layer, without gradients."""
    return model.weights.W_E.element_size() * (10 * model.d_model + 3 * model.d_mlp + 4 * model.n_heads * model.d_head)


def features(
    model: Model, rows: Sequence[Sequence[int]], *, budget: int = BUDGET, progress: Progress | None = None
) -> Float[Tensor, "text d_model"]:
    """What a head reads: the final residual stream, normed, at each text's last token."""
    return read_ends(reading(model), rows, what="reading texts, in tokens", budget=budget, progress=progress)


def reading(model: Model) -> Model:
    """The same model with the identity for its unembedding: it says what a head reads."""
    eye = torch.eye(model.d_model, dtype=model.dtype, device=model.device)
    return dataclasses.replace(model, weights=dataclasses.replace(model.weights, W_U=eye, b_U=None, logit_soft_cap=None))


@torch.no_grad()
def read_ends(
    model: Model,
    rows: Sequence[Sequence[int]],
    *,
    what: str,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> Float[Tensor, "text d_out"]:
    """The logits at the last token of each row of token ids.

    Args:
        model: what reads them.
        rows: the texts.
        what: what progress hears.
        budget: bytes that a pass may take, besides the model.
        progress: hears what is being done, how much of it is done, and how much there is.
    """
    report, done, total = progress or silent, 0, sum(map(len, rows))
    found = model.weights.W_U.new_zeros(len(rows), model.weights.W_U.shape[1])
    for places, batch in batches(model, rows, budget):
        found[places] = forward(model.weights, batch, keep="logits", columns=batch.last).logits[:, 0]
        done += int(batch.mask.sum())
        report(what, done, total)
    return found


def _headed(base: Model, head: Mapping[str, Tensor]) -> Model:
    """The base model with a head in place of its unembedding."""
    weights = dataclasses.replace(base.weights, W_U=head["W_U"], b_U=head["b_U"], logit_soft_cap=None)
    return dataclasses.replace(base, name=f"{base.name} with a head", weights=weights, make_bridge=None)
