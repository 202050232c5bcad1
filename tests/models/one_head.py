"""A model of two layers with one head each, as wide as the residual stream, that has learned induction.

Heads as wide as the stream hold every direction of it, trained or not: the Frobenius norm of their product, by which
K-composition is measured, then says little of the few directions that carry a token. Here a narrow model is trained, and
widened: noise stands in directions that nothing writes to, and changes no number.
"""

import torch
from torch import Tensor

from circuits.models import Model
from circuits.models.weights import Attention, Block, Weights

D_VOCAB, LENGTH = 26, 8
_NARROW, _WIDE = 48, 96
_NOISE = 2.0
"""The noise in a product of two matrices, against the Frobenius norm of what was trained."""
_HEAD = ("W_Q", "W_K", "W_V", "W_O")


def prompts(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Letters, one more than fit, of which one stands again later and then what followed it; and where that is told."""
    ids = torch.rand(count, D_VOCAB, generator=generator).argsort(dim=1)[:, : LENGTH + 1]
    rows, again = torch.arange(count), torch.randint(3, LENGTH, (count,), generator=generator)
    first = (torch.rand(count, generator=generator) * (again - 1)).long()
    ids[rows, again], ids[rows, again + 1] = ids[rows, first], ids[rows, first + 1]
    return ids, torch.arange(LENGTH) == again[:, None]


def one_head_model(*, seed: int = 1, steps: int = 400) -> Model:
    """The model: trained narrow, then widened."""
    return model_of(widened(trained(seed=seed, steps=steps), seed=seed))


def trained(*, seed: int = 1, steps: int = 400) -> dict[str, Tensor]:
    """The narrow model's matrices after some steps of Adam, in double precision: other machines come to the same circuit."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"W_E": (D_VOCAB, _NARROW), "W_pos": (LENGTH, _NARROW), "W_U": (_NARROW, D_VOCAB)}
    shapes |= {f"{name}{layer}": (_NARROW, _NARROW) for layer in range(2) for name in _HEAD}
    drawn = {n: _normal(s, generator) * (1.0 if n in ("W_E", "W_pos") else _NARROW**-0.5) for n, s in shapes.items()}
    parameters = {name: value.requires_grad_() for name, value in drawn.items()}
    optimiser = torch.optim.Adam(parameters.values(), lr=3e-3)
    for _ in range(steps):
        ids, told = prompts(64, generator)
        loss = torch.nn.functional.cross_entropy(logits_of(parameters, ids[:, :-1])[told], ids[:, 1:][told])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return {name: value.detach() for name, value in parameters.items()}


def logits_of(parameters: dict[str, Tensor], ids: Tensor) -> Tensor:
    """The forward pass, by hand; scores are scaled as in the narrow model, whatever the width."""
    x = parameters["W_E"][ids] + parameters["W_pos"]
    later = torch.ones(LENGTH, LENGTH).triu(1).bool()
    for layer in range(2):
        q, k, v = (x @ parameters[f"{name}{layer}"] for name in _HEAD[:3])
        pattern = (torch.einsum("bqd,bkd->bqk", q, k) / _NARROW**0.5).masked_fill(later, -torch.inf).softmax(dim=-1)
        x = x + torch.einsum("bqk,bkd->bqd", pattern, v) @ parameters[f"W_O{layer}"]
    return x @ parameters["W_U"]


def widened(narrow: dict[str, Tensor], *, seed: int = 0) -> dict[str, Tensor]:
    """The same function in twice the width. The new directions of the stream fall into two halves: what layer 0 writes noise to
    and what layer 1 reads noise from. Nothing stands in either, since layer 0 reads its noise from the first half too. At last
    stream and heads are rotated, so that no axis is one or the other."""
    generator = torch.Generator().manual_seed(seed)
    wide = {name: _padded(value) for name, value in narrow.items()}
    new, half = _WIDE - _NARROW, (_WIDE - _NARROW) // 2
    for layer in range(2):
        place = slice(_NARROW, _NARROW + half) if layer == 0 else slice(_NARROW + half, _WIDE)
        for first, second in (("W_V", "W_O"), ("W_Q", "W_K")):
            a, b = f"{first}{layer}", f"{second}{layer}"
            parts = [_normal((half, new), generator) for _ in range(2)]
            whole = narrow[a] @ (narrow[b] if second == "W_O" else narrow[b].T)
            gain = (_NOISE * whole.norm() / (parts[0] @ parts[1].T).norm()) ** 0.5
            wide[a][place, _NARROW:] = gain * parts[0]
            if second == "W_O":
                wide[b][_NARROW:, place] = gain * parts[1].T
            else:
                wide[b][place, _NARROW:] = gain * parts[1]
    turns = [torch.linalg.qr(_normal((_WIDE, _WIDE), generator))[0] for _ in range(5)]
    return {name: _turned(value, name, turns) for name, value in wide.items()}


def _normal(shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _padded(value: Tensor) -> Tensor:
    """Zeros in the new directions."""
    rows, columns = (size if size in (D_VOCAB, LENGTH) else _WIDE for size in value.shape)
    whole = torch.zeros(rows, columns, dtype=torch.float64)
    whole[: value.shape[0], : value.shape[1]] = value
    return whole


def _turned(value: Tensor, name: str, turns: list[Tensor]) -> Tensor:
    """A matrix in rotated coordinates: those of the stream, and those inside the head, of QK and of OV."""
    stream = turns[0]
    if name in ("W_E", "W_pos"):
        return value @ stream
    if name == "W_U":
        return stream.T @ value
    inside = turns[1 + 2 * int(name[-1]) + (name[:3] in ("W_V", "W_O"))]
    return inside.T @ value @ stream if name.startswith("W_O") else stream.T @ value @ inside


def model_of(parameters: dict[str, Tensor]) -> Model:
    """The same as a model without norms, MLPs, biases or a tokenizer."""
    absent = dict.fromkeys(("b_Q", "b_K", "b_V", "b_O"))
    shape = {"n_heads": 1, "n_key_value_heads": 1, "scale": _NARROW**-0.5}
    blocks = []
    for layer in range(2):
        matrices = {name: parameters[f"{name}{layer}"] for name in _HEAD}
        blocks.append(Block(attention_norm=None, attention=Attention(**matrices, **absent, **shape)))
    weights = Weights(
        W_E=parameters["W_E"],
        W_pos=parameters["W_pos"],
        W_U=parameters["W_U"],
        b_U=None,
        blocks=tuple(blocks),
        final_norm=None,
        max_positions=LENGTH,
    )
    return Model(name="one-head", architecture="by hand", weights=weights, tokenizer=None)
