"""Small models trained on a task with one possible route, to judge circuit search where weights are learned.

The residual stream is split into subspaces: one for tokens, one for what each hop brought, scratch. In training there is
one head a layer, whose query and key read tokens alone and whose value reads what the head before it brought; the logits
read the last head's subspace alone. So every edge of the route is needed, and no other edge exists. Afterwards the model
is turned at random and random heads of the same norms are set beside the trained ones: they read everything and write to
scratch, which no trained part reads.

    python -m experiments.ground_truth_models
"""

import dataclasses
import itertools
import random
import time

import torch
from torch import Tensor

import circuits
from circuits.models.planted import HopWords, Planted
from circuits.models.planted.chain import chain_circuit
from circuits.models.planted.parts import Head, Space, bare_block, distractor_head, planted_model
from circuits.models.weights import Weights
from circuits.tasks import PromptPairs
from circuits.tasks.library.planted import hop_pairs, planted_logic_pairs
from circuits.tasks.metric import answer_logits
from circuits.tasks.metrics import accuracy, logit_difference

HOPS, N_HEADS, D_HEAD = 2, 5, 16
D_TOKEN, D_CARRIED, D_SCRATCH = 32, 16, 24
PROMPTS, STEPS, BATCH, LEARNING_RATE = 4096, 500, 256, 1e-2


def trained_route(seed: int = 0, *, count: int = 35) -> tuple[Planted, PromptPairs]:
    """A two-layer attention-only model trained on hops, with the one route it can use, and `count` pairs of its task.

    Every seed trains another model; the same seed and thread count train the same one. About five seconds on one thread.
    """
    words = HopWords(hops=HOPS)
    generator, draw = torch.Generator().manual_seed(seed), random.Random(seed)
    route = _trained(words, seed, generator)
    chain = [(layer, draw.randrange(N_HEADS)) for layer in range(HOPS)]
    model = planted_model(f"trained-route-{seed}", _weights(route, chain, draw, generator))
    planted = Planted(model, chain_circuit(model.graph(), chain), words=words)
    return planted, planted_logic_pairs(planted, count, seed)


@dataclasses.dataclass(frozen=True, eq=False)
class _Route:
    """The parameters of a route in the coordinates of its own subspaces."""

    W_E: Tensor
    """`[token d_token]`"""
    heads: tuple[Head, ...]
    """`W_Q`, `W_K` `[d_token d_head]`; `W_V` `[d_token d_head]` in the first head, `[d_carried d_head]` in others; `W_O`
    `[d_head d_carried]`."""
    W_U: Tensor
    """`[d_carried token]`"""

    @classmethod
    def random(cls, words: HopWords, generator: torch.Generator) -> "_Route":
        def drawn(*shape: int) -> Tensor:
            scale = shape[0] ** -0.5
            return (torch.randn(*shape, generator=generator, dtype=torch.float64) * scale).requires_grad_()

        heads = [
            Head(drawn(D_TOKEN, D_HEAD), drawn(D_TOKEN, D_HEAD), drawn(read, D_HEAD), drawn(D_HEAD, D_CARRIED))
            for read in (D_TOKEN, *(D_CARRIED for _ in range(HOPS - 1)))
        ]
        return cls(drawn(words.d_vocab, D_TOKEN), tuple(heads), drawn(D_CARRIED, words.d_vocab))

    def parameters(self) -> list[Tensor]:
        """All that is trained."""
        return [self.W_E, self.W_U, *(w for head in self.heads for w in vars(head).values())]

    def logits(self, ids: Tensor) -> Tensor:
        """Logits `[prompt token]` at the last position."""
        x = carried = self.W_E[ids]
        causal = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool).tril()
        for head in self.heads:
            scores = torch.einsum("pqe,pke->pqk", x @ head.W_Q, x @ head.W_K).masked_fill(~causal, -torch.inf)
            carried = scores.softmax(dim=-1) @ carried @ head.W_V @ head.W_O
        return carried[:, -1] @ self.W_U


def _trained(words: HopWords, seed: int, generator: torch.Generator) -> _Route:
    """A route trained by Adam with a falling rate on the answers of random prompts."""
    pairs = hop_pairs(words, PROMPTS // 2, seed + 1_000_000)
    ids = torch.cat([pairs.clean.ids, pairs.corrupt.ids])
    answers = torch.cat([pairs.answers, pairs.distractors])
    route = _Route.random(words, generator)
    optimizer = torch.optim.Adam(route.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        rows = torch.randint(len(ids), (BATCH,), generator=generator)
        loss = torch.nn.functional.cross_entropy(route.logits(ids[rows]), answers[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    for parameter in route.parameters():
        parameter.requires_grad_(False)
    return route


def _weights(route: _Route, chain: list[tuple[int, int]], draw: random.Random, generator: torch.Generator) -> Weights:
    """The route in a random rotation of a wider residual stream, among distractors."""
    carried = [f"carried {hop}" for hop in range(HOPS)]
    space = Space.random({"token": D_TOKEN, **dict.fromkeys(carried, D_CARRIED), "scratch": D_SCRATCH}, generator)
    token, read = space["token"].T, ["token", *carried]
    trained = {
        place: Head(token @ head.W_Q, token @ head.W_K, space[read[hop]].T @ head.W_V, head.W_O @ space[carried[hop]])
        for hop, (place, head) in enumerate(zip(chain, route.heads, strict=True))
    }
    models = list(trained.values())
    places = itertools.product(range(HOPS), range(N_HEADS))
    heads = {place: trained.get(place) or distractor_head(space, draw.choice(models), generator) for place in places}
    return Weights(
        W_E=route.W_E @ space["token"],
        W_U=space[carried[-1]].T @ route.W_U,
        b_U=None,
        blocks=tuple(bare_block([heads[layer, head] for head in range(N_HEADS)], None) for layer in range(HOPS)),
        final_norm=None,
        max_positions=None,
    )


def main(seeds: int = 3) -> None:
    """Print each model's accuracy, the exact effects of its route's edges, and the largest of any other edge."""
    for seed in range(seeds):
        start = time.perf_counter()
        planted, pairs = trained_route(seed)
        took = time.perf_counter() - start
        unseen = planted_logic_pairs(planted, 1000, seed + 2_000_000)
        right = float(accuracy(answer_logits(planted.model.run(unseen.clean), unseen), unseen).mean())
        print(f"seed {seed}: trained in {took:.1f} s, {right:.1%} of 1000 new prompts right")
        for direction in ("noising", "denoising"):
            found = circuits.patch_edges(planted.model, pairs, logit_difference, direction=direction)
            effects = dict(zip(found.names, found.effect().tolist(), strict=True))
            true = {str(edge): effects[str(edge)] for edge in planted.circuit.edges}
            other = max(abs(effect) for name, effect in effects.items() if name not in true)
            print(f"  {direction}: " + ", ".join(f"{name} {effect:.2f}" for name, effect in true.items()))
            print(f"  largest of {len(effects) - len(true)} other edges: {other:.1e}")


if __name__ == "__main__":
    main()
