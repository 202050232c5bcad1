"""Which keys an MLP's output weights read on ordinary text, as a second moment: what an edit should leave alone."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from circuits.errors import CircuitsError, FileFormatError, MemoryBudgetError, PromptError
from circuits.files.results import Result
from circuits.files.words import counted
from circuits.models import Model, TokenBatch
from circuits.models.forward import forward
from circuits.models.memory import BUDGET, beside_budget, prompts_at_once
from circuits.models.weight_edits import require_mlp
from circuits.progress import Progress, silent
from circuits.tasks.sources.corpus import written_text

RIDGE = 1e-6
"""Of the mean square of a key's entries, what is added to each: neurons that were never active have no moment of their own."""


@dataclasses.dataclass(frozen=True, eq=False)
class KeyMoments(Result, format="circuits-key-moments", tensors=True):
    """The uncentred second moment of the keys of one layer's MLP over a text: `moments[i, j]` is the mean over tokens of neuron
    i's activation times neuron j's."""

    model: str
    weights_sha256: str
    layer: int
    text_sha256: str
    """Of what says which text was read (`KeyText`)."""
    tokens: int
    moments: Float[Tensor, "d_mlp d_mlp"]

    def __post_init__(self) -> None:
        if self.tokens < 1 or self.layer < 0:
            raise CircuitsError(f"moments of {self.tokens} tokens in layer {self.layer}: expected some")

    @property
    def summary(self) -> str:
        """Of how many tokens, and how many of the neurons were ever active."""
        active = int((self.moments.diagonal() > 0).sum())
        width = len(self.moments)
        return (
            f"keys of layer {self.layer} of {self.model} over {counted(self.tokens, 'token')}: {active:,} of {width:,} active."
        )

    def to_dataframe(self) -> pd.DataFrame:
        """One row a neuron, with the mean square of its activation."""
        squares = self.moments.diagonal().tolist()
        return pd.DataFrame({"layer": self.layer, "neuron": range(len(squares)), "mean_square": squares})

    def factor(self) -> Float[Tensor, "d_mlp d_mlp"]:
        """The lower Cholesky factor of the moment with `RIDGE` on its diagonal."""
        return _factored(self.moments)


def _factored(moments: Tensor) -> Float[Tensor, "d_mlp d_mlp"]:
    ridge = RIDGE * moments.diagonal().mean().clamp(min=1e-30)
    factor, wrong = torch.linalg.cholesky_ex(moments + torch.diag(ridge.expand(len(moments))))
    if int(wrong):
        raise CircuitsError("the keys' second moment is no sum of squares: were the weights damaged?")
    return factor


@dataclasses.dataclass(frozen=True, eq=False)
class KeyText:
    """A text whose keys are read, made when it is needed: moments that are kept are found by what says which text it is."""

    sha256: str
    read: Callable[[], TokenBatch]

    @classmethod
    def of(cls, rows: TokenBatch) -> "KeyText":
        """A text that is there, as rows of tokens."""
        ids = torch.where(rows.mask, rows.ids, -1).cpu().contiguous()
        return cls(_sha256(f"{tuple(ids.shape)}".encode() + ids.numpy().tobytes()), lambda: rows)

    @classmethod
    def written(cls, model: Model, *, tokens: int = 8192, seed: int = 0, progress: Progress | None = None) -> "KeyText":
        """What the model writes itself, about so many tokens of it."""
        width = min(64, tokens, model.max_positions or 64)
        words = f"written by {model.fingerprint}: {tokens} tokens, {width} a row, seed {seed}, {model.opening()}"
        count = max(1, tokens // width)
        return cls(
            _sha256(words.encode()), lambda: written_text(model, count=count, length=width, seed=seed, progress=progress)
        )


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def key_moments(
    model: Model,
    text: KeyText | TokenBatch,
    layers: Sequence[int],
    *,
    folder: Path | None = None,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> Iterator[KeyMoments]:
    """The second moments of some layers' keys over all tokens of a text, one layer after the other, in float64.

    As many layers are read in one pass as the budget holds the moments of. Raises MemoryBudgetError where not even one fits,
    ModelError for a layer without an MLP.

    Args:
        model: whose keys they are.
        text: the text, as rows of tokens, or as what makes them.
        layers: which layers, in any order.
        folder: where moments are kept: those of the same model, layer and text are read, and others written. Named by what
            they are of, so that several models and texts may share one.
        budget: bytes that may be taken above the model.
        progress: hears how many rows of the text have been read.
    """
    for layer in layers:
        require_mlp(model.weights, layer, model.name)
    width = max((model.weights.blocks[layer].mlp.W_out.shape[0] for layer in layers), default=0)  # type: ignore[union-attr]
    each = width**2 * 8
    # One to read into, one that is factored.
    if layers and 2 * each > budget:
        raise MemoryBudgetError(f"the second moments of {width:,} neurons take {beside_budget(2 * each, budget)}")
    text = text if isinstance(text, KeyText) else KeyText.of(text)
    digest, rows = text.sha256, None
    together = max(1, budget // 2 // max(1, each))
    for start in range(0, len(layers), together):
        some = list(layers[start : start + together])
        kept = {layer: found for layer in some if (found := _kept(folder, model, layer, digest)) is not None}
        missing = sorted(set(some) - set(kept))
        if missing:
            rows = text.read() if rows is None else rows
            read, count = _read(model, rows, missing, budget, progress or silent), int(rows.mask.sum())
        for layer in some:
            if layer in kept:
                yield kept[layer]
                continue
            found = KeyMoments(model.name, model.fingerprint, layer, digest, count, read[layer])
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
                found.save(folder / _name(model, layer, digest))
            yield found


def _name(model: Model, layer: int, digest: str) -> str:
    return f"keys-{model.fingerprint[:12]}-{layer}-{digest[:12]}.safetensors"


def _kept(folder: Path | None, model: Model, layer: int, digest: str) -> KeyMoments | None:
    """Moments of just this that lie in a folder; None where there are none, or the file is damaged."""
    if folder is None or not (file := folder / _name(model, layer, digest)).is_file():
        return None
    try:
        found = KeyMoments.load(file)
    except FileFormatError:
        return None  # it is computed anew, and written over
    same = (found.weights_sha256, found.layer, found.text_sha256) == (model.fingerprint, layer, digest)
    return found if same else None


def _read(
    model: Model, text: TokenBatch, layers: Sequence[int], budget: int, report: Progress
) -> dict[int, Float[Tensor, "d_mlp d_mlp"]]:
    """The moments of some layers, from one pass over a text through the layers up to the last of them."""
    if not int(text.mask.sum()):
        raise PromptError("there is no text to read keys on")
    weights, sums = model.weights.of_layers(0, max(layers) + 1), dict[int, Tensor]()
    rows = prompts_at_once(weights, text.ids.shape[1], budget=budget)
    for start in range(0, len(text), rows):
        report("reading the keys of a text", start, len(text))
        batch = model.prepare(text[start : start + rows])
        with torch.no_grad():
            run = forward(weights, batch, keep="factors", logits=False)
        for layer in layers:
            keys = run.neurons[layer][batch.mask.to(run.neurons[layer].device)].cpu().double()
            if layer in sums:
                sums[layer].addmm_(keys.T, keys)
            else:
                sums[layer] = keys.T @ keys
    report("reading the keys of a text", len(text), len(text))
    count = int(text.mask.sum())
    return {layer: total / count for layer, total in sums.items()}
