"""Prompt vectors (OptiPrompt, Zhong et al. 2021), trained through a frozen model by what it answers on other facts."""

import dataclasses
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.errors import CircuitsError
from circuits.models import Model, TokenBatch
from circuits.models.forward import forward
from circuits.models.weights import Weights

BATCH = 32
"""Facts that are trained on together."""
RATE = 0.2
"""Adam's step, in root mean squares of an entry of the embeddings."""
PATIENCE = 30
"""Epochs without a smaller loss after which training stops."""
STARTS = 4
"""Draws of tokens among which the one with the least loss is where training starts: from one alone it often ends on the plateau
on which the most frequent objects are all that is answered."""


@dataclasses.dataclass(frozen=True, eq=False)
class Asker:
    """A model that answers rows of tokens with one of a few objects. Of its embeddings and its unembedding only what the rows
    and the objects need is kept, so that a pass costs neither vocabulary."""

    weights: Weights
    place: dict[int, int]
    """Where a token stands in the embeddings that are kept."""
    embeddings: Float[Tensor, "d_vocab d_model"]
    """All of them, for vectors to start from."""

    @classmethod
    def of(cls, model: Model, rows: Sequence[Sequence[int]], objects: Sequence[int]) -> "Asker":
        """For these rows and objects."""
        known, wanted = sorted({token for row in rows for token in row}), list(objects)
        weights, bias = model.weights, model.weights.b_U
        kept = dataclasses.replace(
            weights,
            W_E=weights.W_E[known],
            W_U=weights.W_U[:, wanted].contiguous(),
            b_U=None if bias is None else bias[wanted],
        )
        return cls(kept, {token: at for at, token in enumerate(known)}, weights.W_E)

    def logits(
        self, rows: Sequence[Sequence[int]], vectors: Float[Tensor, "vector d_model"] | None = None
    ) -> Float[Tensor, "row object"]:
        """What is answered behind each row, or behind the vectors that follow it, as tokens of their own whose embeddings they
        are: positions, scales and norms of embeddings act on them alike."""
        weights, behind = self.weights, list[int]()
        if vectors is not None:
            behind = [len(self.place) + at for at in range(len(vectors))]
            weights = dataclasses.replace(weights, W_E=torch.cat([weights.W_E, vectors.to(weights.W_E)]))
        tokens = TokenBatch.from_rows([[*(self.place[token] for token in row), *behind] for row in rows])
        tokens = tokens.to(weights.W_E.device)
        return forward(weights, tokens, keep="logits", columns=tokens.last).logits[:, 0].float()

    def answers(self, rows: Sequence[Sequence[int]], vectors: Float[Tensor, "vector d_model"] | None = None) -> Tensor:
        """Logits of many rows, batch by batch, without gradients."""
        with torch.no_grad():
            starts = range(0, len(rows), BATCH)
            return torch.cat([self.logits(rows[start : start + BATCH], vectors) for start in starts])


def train_vectors(
    asker: Asker,
    train: Sequence[Sequence[int]],
    right: Int[Tensor, " train"],
    stop: Sequence[Sequence[int]],
    stop_right: Int[Tensor, " stop"],
    *,
    vectors: int = 5,
    epochs: int = 40,
    seed: int = 0,
) -> Float[Tensor, "vector d_model"]:
    """Vectors behind a subject that make the model answer with its object: those with the least cross-entropy, among the
    objects, on facts that they were not trained on. By Adam, from the embeddings of tokens, of 4 draws those with the least
    loss; gradients reach the vectors alone. Training ends after 30 epochs without a gain.

    Raises CircuitsError without rows, and for numbers below 1.

    Args:
        asker: the model, which stays as it is.
        train: tokens of the subjects to train on.
        right: which of the objects answers each.
        stop: those of the subjects that say when to stop.
        stop_right: likewise.
        vectors: how many there are.
        epochs: how often each subject is seen at most.
        seed: that of the first vectors and of the order.
    """
    if not train or not stop or vectors < 1 or epochs < 1:
        found = f"{len(train)} and {len(stop)} subjects, vectors={vectors}, epochs={epochs}"
        raise CircuitsError(f"{found}: expected at least 1 of each")
    generator = torch.Generator().manual_seed(seed)
    device = asker.embeddings.device
    right, stop_right = right.to(device), stop_right.to(device)
    V = _start(asker, train, right, vectors, generator).requires_grad_()
    optimiser = torch.optim.Adam([V], lr=RATE * float(asker.weights.W_E.float().square().mean().sqrt()))
    best, least, since = V.detach().clone(), torch.inf, 0
    for _ in range(epochs):
        for chosen in torch.randperm(len(train), generator=generator).split(BATCH):
            with torch.enable_grad():
                answered = asker.logits([train[at] for at in chosen.tolist()], V)
                torch.nn.functional.cross_entropy(answered, right[chosen.to(V.device)]).backward()
            optimiser.step()
            optimiser.zero_grad()
        loss = float(torch.nn.functional.cross_entropy(asker.answers(stop, V), stop_right))
        if loss < least:
            best, least, since = V.detach().clone(), loss, 0
        else:
            since += 1
        if since >= PATIENCE:
            break
    return best


def _start(
    asker: Asker, train: Sequence[Sequence[int]], right: Tensor, vectors: int, generator: torch.Generator
) -> Float[Tensor, "vector d_model"]:
    """Of some draws of tokens the embeddings of those that answer best, on some of the facts."""
    some = min(len(train), BATCH)
    best, least = torch.zeros(0), torch.inf
    for _ in range(STARTS):
        drawn = torch.randint(len(asker.embeddings), (vectors,), generator=generator).to(asker.embeddings.device)
        V = asker.embeddings[drawn].float()
        loss = float(torch.nn.functional.cross_entropy(asker.answers(train[:some], V), right[:some]))
        if loss < least or not len(best):
            best, least = V, loss
    return best
