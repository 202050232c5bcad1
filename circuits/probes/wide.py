"""A probe with one hidden layer, or a linear one through few directions, to be held against the linear one."""

import dataclasses

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from circuits.errors import CircuitsError

BATCH, RATE = 256, 1e-3


@dataclasses.dataclass(frozen=True, eq=False)
class HiddenProbe:
    """relu(x W + b) U + c; without the rectifier where it is `linear`."""

    parts: tuple[Tensor, Tensor, Tensor, Tensor]
    linear: bool = False

    def scores(self, x: Float[Tensor, "word width"]) -> Float[Tensor, "word class"]:
        """Log-odds of each class (up to a constant a word)."""
        W, b, U, c = self.parts
        inside = torch.addmm(b, x, W)
        return torch.addmm(c, inside if self.linear else inside.relu(), U)


def fit_hidden(
    x: Float[Tensor, "word width"],
    labels: Int[Tensor, " word"],
    *,
    classes: int,
    hidden: int = 256,
    linear: bool = False,
    decay: float = 1e-4,
    epochs: int | None = None,
    seed: int = 0,
) -> HiddenProbe:
    """Train one hidden layer of rectified units on the mean cross-entropy by Adam (batches of 256, step 1e-3 falling to 0, the
    squared weights times `decay` / 2 added), in float32 or wider; what is drawn is decided by `seed`. `linear`: of units that
    are not rectified, so that all is a linear probe of that rank. `epochs`: 12, and on few words so many that there are 600
    steps.

    Raises CircuitsError for numbers below 1.
    """
    epochs = max(12, -(-600 * BATCH // max(1, len(x)))) if epochs is None else epochs
    for name, value in {"hidden": hidden, "epochs": epochs, "classes": classes, "words": len(x)}.items():
        if value < 1:
            raise CircuitsError(f"{name} is {value}; expected a whole number from 1 on")
    generator = torch.Generator().manual_seed(seed)
    width = x.shape[1]
    shapes = ((width, hidden), (hidden,), (hidden, classes), (classes,))
    gain = 1 if linear else 2
    drawn = [torch.randn(shape, generator=generator) * (gain / shape[0]) ** 0.5 * (len(shape) > 1) for shape in shapes]
    parts = [part.to(x).requires_grad_() for part in drawn]
    fitting = HiddenProbe((parts[0], parts[1], parts[2], parts[3]), linear)
    groups = [{"params": parts[::2], "weight_decay": decay}, {"params": parts[1::2]}]
    optimiser = torch.optim.Adam(groups, lr=RATE)
    falling = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, total_iters=epochs * -(-len(x) // BATCH))
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=generator).split(BATCH):
            with torch.enable_grad():
                F.cross_entropy(fitting.scores(x[rows]), labels[rows]).backward()
            optimiser.step()
            optimiser.zero_grad()
            falling.step()
    return HiddenProbe((parts[0].detach(), parts[1].detach(), parts[2].detach(), parts[3].detach()), linear)
