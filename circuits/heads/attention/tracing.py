"""From the attention patterns of a run to one number a source token: how much a readout token seems to draw from it.

Attention is a hint, not a cause: hold these numbers beside what happens when a token is taken away
(`circuits.attention`). A token is a column of the run; pads score exactly 0, and no number depends on them.
"""

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.errors import NonFiniteError, PromptError
from circuits.heads.attention.max_flow import layered_flows
from circuits.heads.composition import output_matrices
from circuits.models import Run
from circuits.progress import Progress, silent

if TYPE_CHECKING:
    import networkx

TRACINGS = ("lat", "rollout", "flow", "norm")
"""Names of the tracings, in the order in which they are shown."""


def trace_attention(
    run: Run, readout: Int[Tensor, " prompt"] | None = None, *, progress: Progress | None = None
) -> dict[str, Float[Tensor, "prompt source"]]:
    """Every tracing by its name: `lat`, `rollout`, `flow` and `norm`, as the functions of this module define them.

    `readout`: the column of each prompt's readout token (default: its last token).
    """
    return {
        "lat": lat(run, readout).mean(dim=1),
        "rollout": rollout(run, readout),
        "flow": flow(run, readout, progress=progress),
        "norm": norm_weighted(run, readout),
    }


def lat(run: Run, readout: Int[Tensor, " prompt"] | None = None) -> Float[Tensor, "prompt head source"]:
    """Layer-wise attention tracing (Wu et al. 2020): `e_r A_L A_(L-1) … A_1` for each head index by itself, with e_r the
    readout's unit vector and A_l the attention pattern of that head of layer l (query rows, key columns).

    There is no residual term, and heads of different indices never mix. Rows sum to 1; the usual score of a token is the
    mean over heads. In float64, on the run's device. Raises PromptError for a readout that is a pad or no column,
    NonFiniteError for a pattern that is none.
    """
    columns = readout_columns(run, readout)
    at = _unit(run, columns)[:, None].expand(-1, run.weights.blocks[0].attention.n_heads, -1)
    for layer in reversed(range(len(run.weights.blocks))):
        at = torch.einsum("phq,phqk->phk", at, _pattern(run, layer))
    return at


def rollout(run: Run, readout: Int[Tensor, " prompt"] | None = None) -> Float[Tensor, "prompt source"]:
    """Attention rollout (Abnar & Zuidema 2020): `e_r R_L … R_1`, where R_l is the mean over heads of layer l's patterns plus
    the identity (the residual connection), each row divided by its sum. Rows sum to 1. Raises as `lat`."""
    at = _unit(run, readout_columns(run, readout))
    for layer in reversed(range(len(run.weights.blocks))):
        at = torch.einsum("pq,pqk->pk", at, _mixed(run, layer))
    return at


def flow(
    run: Run, readout: Int[Tensor, " prompt"] | None = None, *, progress: Progress | None = None
) -> Float[Tensor, "prompt source"]:
    """Attention flow (Abnar & Zuidema 2020): the maximum flow from the readout's node above the last layer to each source's
    node below the first, in the network of `flow_network`; from 0 to 1.

    Each source has a flow of its own, so a row has no fixed sum: it is 1 or more. Equal to networkx's `maximum_flow_value`
    (to 1e-12), in a fraction of its time: for 128 tokens in 12 layers some seconds, for 256 in 24 a minute and more.
    Raises as `lat`.
    """
    columns, mask = readout_columns(run, readout), run.tokens.mask
    mixed = torch.stack([_mixed(run, layer) for layer in reversed(range(len(run.weights.blocks)))], dim=1)
    scores = torch.zeros(mask.shape, dtype=torch.float64, device=mask.device)
    report, done, total = progress or silent, 0, int(mask.sum())
    for prompt in range(len(mask)):
        real = mask[prompt].nonzero()[:, 0]
        start = int((real == columns[prompt]).nonzero()[0, 0])

        def told(sinks: int, before: int = done) -> None:
            """Say how far this prompt's sinks are."""
            report("tracing flows", before + sinks, total)

        found = layered_flows(mixed[prompt][:, real][:, :, real], start, progress=told)
        scores[prompt, real] = found.to(scores.device)
        done += len(real)
        report("tracing flows", done, total)
    return scores


def flow_network(run: Run, *, prompt: int = 0) -> "networkx.DiGraph":
    """The network whose maximum flows `flow` gives, for one prompt of a run: nodes (level, column), level 0 the embeddings
    and level l what layer l wrote; from each (l, query) an edge to each (l - 1, key) with `capacity` the row-normalised
    (mean over heads of the pattern + identity) of layer l. Pads have no nodes, zeros no edges."""
    import networkx

    network = networkx.DiGraph()
    real = run.tokens.mask[prompt].nonzero()[:, 0].tolist()
    network.add_nodes_from((level, column) for level in range(len(run.weights.blocks) + 1) for column in real)
    for layer in range(len(run.weights.blocks)):
        capacity = _mixed(run, layer)[prompt].tolist()
        for query in real:
            for key in real:
                if capacity[query][key] > 0:
                    network.add_edge((layer + 1, query), (layer, key), capacity=capacity[query][key])
    return network


def norm_weighted(run: Run, readout: Int[Tensor, " prompt"] | None = None) -> Float[Tensor, "prompt source"]:
    """What the readout itself takes from each token, by size instead of by attention (Kobayashi et al. 2020): in each layer
    `|sum over heads of a_rj v_j W_O|`, v with its bias, as a share of its sum over tokens, averaged over layers.

    A head that rests on a token whose value is small counts for little here. It looks one step back in each layer and is
    not traced further. A norm after attention enters with its gain and centring. Rows sum to 1 (all 0 where every value
    is zero). Raises as `lat`.
    """
    columns = readout_columns(run, readout)
    rows = torch.arange(len(columns), device=columns.device)
    shares = torch.zeros(run.tokens.mask.shape, dtype=torch.float64, device=columns.device)
    for layer, block in enumerate(run.weights.blocks):
        attention = block.attention
        looks = _pattern(run, layer)[rows, :, columns]
        values = run.v[layer].double().repeat_interleave(attention.n_heads // attention.n_key_value_heads, dim=2)
        weighted = torch.einsum("phk,pkhd->pkhd", looks, values)
        sizes = torch.einsum("pkhd,hdm->pkm", weighted, output_matrices(block).double()).norm(dim=-1)
        sizes = sizes * run.tokens.mask
        shares += sizes / sizes.sum(dim=1, keepdim=True).clamp(min=1e-300)
    return shares / len(run.weights.blocks)


def readout_columns(run: Run, readout: Int[Tensor, " prompt"] | None) -> Int[Tensor, " prompt"]:
    """The column that each prompt is read at (default: its last token). Raises PromptError for a pad or no column."""
    mask = run.tokens.mask
    columns = run.tokens.last if readout is None else readout.to(mask.device)
    if len(columns) != len(mask):
        raise PromptError(f"{len(columns)} readout columns for {len(mask)} prompts; expected one a prompt")
    inside = (columns >= 0) & (columns < mask.shape[1])
    sound = inside & mask.gather(1, columns.clamp(0, mask.shape[1] - 1)[:, None])[:, 0]
    if not bool(sound.all()):
        prompt = int((~sound).nonzero()[0, 0])
        raise PromptError(f"prompt {prompt}: column {int(columns[prompt])} is no token of its own to read at")
    return columns


def _unit(run: Run, columns: Int[Tensor, " prompt"]) -> Float[Tensor, "prompt position"]:
    unit = torch.zeros(run.tokens.mask.shape, dtype=torch.float64, device=columns.device)
    return unit.scatter(1, columns[:, None], 1.0)


def _pattern(run: Run, layer: int) -> Float[Tensor, "prompt head query key"]:
    """A layer's pattern in float64, 0 at pads."""
    mask = run.tokens.mask
    pattern = run.pattern(layer).double()
    pattern = torch.where((mask[:, :, None] & mask[:, None, :])[:, None], pattern, 0.0)
    if not bool(pattern.isfinite().all()):
        prompt, head, query, _ = (~pattern.isfinite()).nonzero()[0].tolist()
        raise NonFiniteError(f"the pattern of a{layer}.h{head} holds NaN or infinity at prompt {prompt}, position {query}")
    return pattern


def _mixed(run: Run, layer: int) -> Float[Tensor, "prompt query key"]:
    """Mean over heads plus identity, rows divided by their sums; a pad's row is its own unit vector."""
    mean = _pattern(run, layer).mean(dim=1)
    mixed = mean + torch.eye(mean.shape[-1], dtype=mean.dtype, device=mean.device)
    return mixed / mixed.sum(dim=-1, keepdim=True)
