"""The end of prompts behind one layer's MLP, computed time and again with something added to what that MLP writes at one token.

All that lies before that token, or below that MLP, stays as it was: it is computed once. So a step of a search costs the few
tokens from the subject's last one on, in the layers above.
"""

import dataclasses

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.errors import ModelError
from circuits.models import Model, Run, TokenBatch
from circuits.models.forward import forward
from circuits.models.geometry import Geometry
from circuits.models.layers import (
    SLOTS,
    attend,
    attention_output,
    linear,
    mlp_output,
    neuron_activations,
    normalise,
    placed,
    project,
    unembed,
)
from circuits.models.weight_edits import require_mlp
from circuits.models.weights import MLP, Block


@dataclasses.dataclass(frozen=True, eq=False)
class Endings:
    """Prompts that end in the last column, and in each a column at which something is added to what a layer's MLP writes."""

    run: Run
    layer: int
    columns: Int[Tensor, " prompt"]
    geometry: Geometry

    @classmethod
    def of(cls, model: Model, layer: int, tokens: TokenBatch, columns: Int[Tensor, " prompt"]) -> "Endings":
        """Run prompts once. Raises ModelError for a layer without an MLP, and for a model whose attention looks ahead."""
        require_mlp(model.weights, layer, model.name)
        if not model.weights.causal:
            raise ModelError(f"{model.name} looks ahead: what its MLPs write at a subject hangs on the question behind it")
        tokens = model.prepare(tokens)
        with torch.no_grad():
            run = forward(model.weights, tokens, keep="factors", logits=False)
        return cls(run, layer, columns.to(tokens.ids.device), Geometry(model.weights, tokens, model.dtype))

    @property
    def _rows(self) -> Int[Tensor, " prompt"]:
        return torch.arange(len(self.columns), device=self.columns.device)

    @property
    def _block(self) -> Block:
        return self.run.weights.blocks[self.layer]

    @property
    def mlp(self) -> MLP:
        """The MLP whose output weights are edited."""
        mlp = self._block.mlp
        assert mlp is not None, "looked at in `of`"
        return mlp

    def keys(self) -> Float[Tensor, "prompt d_mlp"]:
        """The neurons' activations at the columns: what the output weights read there."""
        return self.run.neurons[self.layer][self._rows, self.columns]

    def values(self) -> Float[Tensor, "prompt d_model"]:
        """What the output weights write there, before any norm behind them."""
        return linear(self.keys(), self.mlp.W_out, self.mlp.b_out)

    def states(self) -> Float[Tensor, "prompt d_model"]:
        """The residual stream behind the layer, there."""
        return self.run.residuals[self.layer + 1][self._rows, self.columns]

    def logits(self, added: Float[Tensor, " d_model"] | None = None) -> Float[Tensor, "prompt d_vocab_out"]:
        """Logits at the last column with `added` to the values of all prompts."""
        weights, start = self.run.weights, int(self.columns.min())
        x = self.run.residuals[self.layer + 1][:, start:]
        if added is not None:
            values = self.values()
            written = normalise((values + added.to(values)), self._block.mlp_post_norm)
            state = self.run.middles[self.layer][self._rows, self.columns] + written
            x = x.index_put((self._rows, self.columns - start), state)
        columns = torch.arange(start, self.run.tokens.ids.shape[1], device=x.device)[None]
        for layer in range(self.layer + 1, len(weights.blocks)):
            x = self._through(layer, x.to(weights.blocks[layer].device), columns)
        return unembed(weights, x[:, -1])

    def _through(self, layer: int, x: Tensor, columns: Int[Tensor, "1 column"]) -> Float[Tensor, "prompt column d_model"]:
        """The last columns of the residual stream behind a layer, from those before it."""
        block, weights = self.run.weights.blocks[layer], self.run.weights
        turned = self.geometry.rotation(layer)
        turned = None if turned is None else turned.picked(lambda table: table[:, columns[0]])
        normed = normalise(x, block.attention_norm)
        q, k, v = (placed(project(normed, block.attention, slot), slot, turned) for slot in SLOTS)
        before = int(columns[0, 0])
        k = torch.cat([self.run.k[layer][:, :before], k], dim=1)
        v = torch.cat([self.run.v[layer][:, :before], v], dim=1)
        z = attend(q, k, v, block.attention, self.geometry.bias_at(block.attention.window, columns))
        middle = x + attention_output(z, block.attention, block.attention_post_norm)
        if block.mlp is None:
            return middle
        neurons = neuron_activations(normalise(x if weights.parallel else middle, block.mlp_norm), block.mlp)
        return middle + mlp_output(neurons, block.mlp, block.mlp_post_norm)
