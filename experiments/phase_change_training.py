"""Attention-only models trained on text that repeats at random lags, measured as they learn.

The text is drawn from a fixed random bigram source (so that there is something to learn besides repeats), and every row says
its first `lag` tokens over and over, `lag` drawn anew for each row: no fixed distance leads to the token to copy. A step's
batch depends on the seed and the step alone, so a run that was stopped goes on from its state file as if it had not been.
"""

import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from circuits.errors import FileFormatError
from circuits.files.writing import write_whole
from circuits.heads import Snapshot, TrainingCurves, take_snapshot
from circuits.models import Model, TokenBatch
from circuits.models.forward import forward
from circuits.models.weights import Attention, Block, Norm, Rotary, Weights

HELD_OUT = 64
"""Rows of text on which losses and previous-token scores are measured; training never sees them."""
BETAS = (0.9, 0.98)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """All that decides a run."""

    layers: int
    seed: int
    steps: int = 1600
    record_every: int = 20
    vocabulary: int = 128
    d_model: int = 64
    heads: int = 4
    context: int = 64
    batch: int = 32
    rate: float = 2e-3
    warmup: int = 50
    weight_decay: float = 0.01
    spread: float = 0.05
    """Standard deviation of the initial matrices."""
    lags: tuple[int, int] = (8, 30)
    contrast: float = 2.0
    """Standard deviation of the source's log-odds: 0 draws all tokens alike, more makes successors surer."""

    @property
    def name(self) -> str:
        """What the run's files are called."""
        return f"{'one' if self.layers == 1 else 'two'}-layer-seed{self.seed}"

    @property
    def early(self) -> range:
        """Positions where losses are early for the in-context-learning score."""
        return range(4, 8)

    @property
    def late(self) -> range:
        """Positions where losses are late: the last eighth of a row."""
        return range(self.context - self.context // 8, self.context)


def draw_rows(recipe: Recipe, count: int, generator: torch.Generator) -> Tensor:
    """Rows `[count context]` of token ids: BOS (0), then a segment of bigram text said again and again."""
    source = torch.Generator().manual_seed(0)  # one language for all seeds
    size = recipe.vocabulary - 1
    table = (recipe.contrast * torch.randn(size, size, generator=source)).softmax(dim=-1).cumsum(dim=-1)
    low, high = recipe.lags
    chances = torch.rand(high, count, generator=generator)
    segment = [torch.randint(size, (count,), generator=generator)]
    for chance in chances[1:]:
        segment.append((table[segment[-1]] < chance[:, None]).sum(dim=-1).clamp(max=size - 1))
    lag = torch.randint(low, high + 1, (count, 1), generator=generator)
    said = torch.stack(segment, dim=1).gather(1, torch.arange(recipe.context - 1)[None] % lag) + 1
    return torch.cat([torch.zeros(count, 1, dtype=torch.long), said], dim=1)


def build_model(recipe: Recipe) -> Model:
    """A fresh model with LayerNorms and rotary positions, every tensor a leaf that asks for its gradient."""
    generator = torch.Generator().manual_seed(recipe.seed)
    width, d_head = recipe.d_model, recipe.d_model // recipe.heads

    def matrix(rows: int, columns: int) -> Tensor:
        return (torch.randn(rows, columns, generator=generator) * recipe.spread).requires_grad_()

    def norm() -> Norm:
        return Norm("layer", torch.ones(width, requires_grad=True), torch.zeros(width, requires_grad=True), 1e-5)

    def block() -> Block:
        W_Q, W_K, W_V, W_O = (matrix(width, width) for _ in range(4))
        return Block(norm(), Attention(W_Q, W_K, W_V, W_O, None, None, None, None, recipe.heads, recipe.heads, d_head**-0.5))

    weights = Weights(
        W_E=matrix(recipe.vocabulary, width),
        W_U=matrix(width, recipe.vocabulary),
        b_U=torch.zeros(recipe.vocabulary, requires_grad=True),
        blocks=tuple(block() for _ in range(recipe.layers)),
        final_norm=norm(),
        max_positions=recipe.context,
        rotary=Rotary(10000.0 ** (-torch.arange(0, d_head, 2) / d_head), adjacent=False),
    )
    return Model(recipe.name, "attention-only", weights, None)


class Run:
    """One model in training: its tensors, AdamW's moments, the snapshots so far."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe, self.model = recipe, build_model(recipe)
        self.trained = {name: tensor for name, tensor in self.model.weights.tensors() if tensor.requires_grad}
        rates = {"lr": recipe.rate, "betas": BETAS, "weight_decay": recipe.weight_decay}
        self.optimizer = torch.optim.AdamW(self.trained.values(), fused=True, **rates)
        self.snapshots: list[Snapshot] = []
        self.step, self.cpu_seconds = 0, 0.0
        held_out = torch.Generator().manual_seed(2**40)
        self.text = TokenBatch.unpadded(draw_rows(recipe, HELD_OUT, held_out))

    def record(self) -> None:
        """Measure the model as it is."""
        early, late = self.recipe.early, self.recipe.late
        self.snapshots.append(take_snapshot(self.model, self.step, text=self.text, early=early, late=late))

    def learn(self) -> None:
        """One update on the mean loss of a batch."""
        recipe = self.recipe
        rows = draw_rows(recipe, recipe.batch, torch.Generator().manual_seed(recipe.seed * 1_000_003 + self.step))
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.rate * min(1.0, (self.step + 1) / recipe.warmup)
        logits = forward(self.model.weights, TokenBatch.unpadded(rows), keep="logits").logits
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), rows[:, 1:].flatten())
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.step += 1

    def save(self, path: Path) -> None:
        """Write everything that the rest of the run depends on, as one file that appears whole."""
        tensors = {f"weights {name}": tensor.detach() for name, tensor in self.trained.items()}
        for name, tensor in self.trained.items():
            tensors |= {f"{key} {name}": value for key, value in self.optimizer.state[tensor].items()}
        taken = [{**dataclasses.asdict(one), **_as_lists(one)} for one in self.snapshots]
        about: dict[str, Any] = {"recipe": dataclasses.asdict(self.recipe), "step": self.step, "snapshots": taken}
        about["cpu_seconds"] = self.cpu_seconds
        write_whole(path, save(tensors, {"run": json.dumps(about)}))

    def load(self, path: Path) -> None:
        """Go back to where `save` was called. Raises FileFormatError for anything but a state of this recipe."""
        try:
            with safe_open(path, "pt") as file:
                about = json.loads(file.metadata()["run"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if about["recipe"] != json.loads(json.dumps(dataclasses.asdict(self.recipe))):
                raise FileFormatError(f"{path}: a run of another recipe; remove it, or name another folder with --out")
            with torch.no_grad():
                for name, tensor in self.trained.items():
                    tensor.copy_(tensors[f"weights {name}"])
                    moments = ("step", "exp_avg", "exp_avg_sq") if about["step"] else ()
                    self.optimizer.state[tensor] = {key: tensors[f"{key} {name}"] for key in moments}
            self.snapshots = [_from_lists(one) for one in about["snapshots"]]
            self.step, self.cpu_seconds = int(about["step"]), float(about["cpu_seconds"])
        except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
            words = " ".join(str(error).split())[:150]
            raise FileFormatError(f"{path}: no state of a run: {words}; remove it to train anew") from None


def _tensor_fields() -> Iterator[str]:
    return (field.name for field in dataclasses.fields(Snapshot) if field.name not in ("step", "losses"))


def _as_lists(snapshot: Snapshot) -> dict[str, Any]:
    return {name: getattr(snapshot, name).tolist() for name in _tensor_fields()}


def _from_lists(record: dict[str, Any]) -> Snapshot:
    tensors = {name: torch.tensor(record[name], dtype=torch.float64) for name in _tensor_fields()}
    return Snapshot(int(record["step"]), losses=record["losses"], **tensors)


def train(recipe: Recipe, folder: Path, progress: Callable[[str, int, int], None]) -> tuple[TrainingCurves, float]:
    """Train from the run's state in the folder, or from the start, to the last step; its curves and CPU seconds."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileFormatError(f"{folder}: cannot be written: {error.strerror}; name another folder with --out") from None
    state, run = folder / f"{recipe.name}.safetensors", Run(recipe)
    if state.exists():
        run.load(state)
    while True:
        started = time.process_time()
        due = [one.step for one in run.snapshots[-1:]] != [run.step]
        if due and (run.step % recipe.record_every == 0 or run.step == recipe.steps):
            run.record()
            run.cpu_seconds += time.process_time() - started
            run.save(state)
        progress(recipe.name, run.step, recipe.steps)
        if run.step >= recipe.steps:
            return TrainingCurves.of(recipe.name, run.snapshots), run.cpu_seconds
        started = time.process_time()
        run.learn()
        run.cpu_seconds += time.process_time() - started
