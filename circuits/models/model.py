"""`Model`: a language model as a graph that runs."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.errors import ModelError, NonFiniteError, PromptError
from circuits.graph import Graph, Roles
from circuits.models.edited import Edited, edits_on, put_on, taken_off
from circuits.models.edits import Edit, compile_edits
from circuits.models.forward import Keep, forward
from circuits.models.run import Run
from circuits.models.tokenizing import added_behind, added_in_front, bos_of, token_ids
from circuits.models.tokens import TokenBatch
from circuits.models.weight_edits import WeightEdit, read_edits
from circuits.models.weights import Weights, all_finite

Prompts = str | list[str] | Int[Tensor, "prompt position"] | Int[Tensor, " position"] | TokenBatch


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """Weights, tokenizer and name. `run` runs it, `graph` describes it, `bridge` gives the TransformerBridge."""

    name: str
    architecture: str
    weights: Weights = dataclasses.field(repr=False)
    tokenizer: Any = dataclasses.field(repr=False)
    """A Hugging Face tokenizer, or None for models that have none (planted, native)."""
    prepend_bos: bool | None = None
    """Whether prompts open with a beginning-of-sequence token; None: as the tokenizer does, with the named `bos` where there
    is no tokenizer."""
    make_bridge: Callable[[], Any] | None = dataclasses.field(default=None, repr=False)
    bos: int | None = None
    """The BOS token of a model without a tokenizer, where it was made for one."""
    stored: str | None = None
    """The number formats of the file's tensors, where the weights were dequantised ("Q4_1, Q8_0, F32")."""
    edited: Edited | None = dataclasses.field(default=None, repr=False)
    """The edits that its weights came of, where there are any."""

    @classmethod
    def from_bridge(cls, bridge: Any, *, name: str | None = None) -> "Model":
        """A checked model from a TransformerBridge, raw or in compatibility mode; the bridge is kept, its weights
        are shared where its layout allows. Raises ModelError for parts that are not represented."""
        from circuits.models.loading.load import from_bridge

        return from_bridge(bridge, name=name)

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return len(self.weights.blocks)

    @property
    def n_heads(self) -> int:
        """Attention heads a layer."""
        return self.weights.blocks[0].attention.n_heads

    @property
    def n_key_value_heads(self) -> int:
        """Groups of heads a layer that share keys and values (n_heads where nothing is shared)."""
        return self.weights.blocks[0].attention.n_key_value_heads

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.weights.W_E.shape[1]

    @property
    def d_head(self) -> int:
        """Width of a head."""
        return self.weights.blocks[0].attention.d_head

    @property
    def d_mlp(self) -> int:
        """Neurons a layer; 0 for attention-only models."""
        mlp = self.weights.blocks[0].mlp
        return 0 if mlp is None else mlp.W_in.shape[1]

    @property
    def d_vocab(self) -> int:
        """Size of the input vocabulary."""
        return self.weights.W_E.shape[0]

    @property
    def max_positions(self) -> int | None:
        """Longest prompt, or None where positions set no limit."""
        return self.weights.max_positions

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.weights.W_E.device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights."""
        return self.weights.W_E.dtype

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the weights, saved with every result."""
        return self.weights.fingerprint()

    def require_finite(self) -> None:
        """Raise NonFiniteError with the first weight that holds NaN or infinity. Looked up once."""
        if self._broken_weight is not None:
            raise NonFiniteError(f"the weight {self._broken_weight} of {self.name} holds NaN or infinity")

    @functools.cached_property
    def _broken_weight(self) -> str | None:
        return next((name for name, tensor in self.weights.tensors() if not all_finite(tensor)), None)

    @property
    def bridge(self) -> Any:
        """The TransformerBridge, for hooks. A loaded model builds it anew at every access (one copy of the weights is
        held otherwise): keep the result while you need it."""
        if self.edits:
            raise ModelError(
                f"{self.name}: a TransformerBridge has the weights without the edits; take them off (`without_edits`)"
            )
        if self.make_bridge is None:
            raise ModelError(f"{self.name} was built from plain weights and has no TransformerBridge")
        return self.make_bridge()

    def graph(self, *, neurons: bool = False, roles: Roles | None = None) -> Graph:
        """The model's graph: heads and MLPs, each once a role where there are roles of tokens, or heads and single neurons."""
        return Graph(
            n_layers=self.n_layers,
            n_heads=self.n_heads,
            n_key_value_heads=self.n_key_value_heads,
            d_mlp=self.d_mlp,
            parallel=self.weights.parallel,
            neurons=neurons,
            roles=roles,
        )

    @property
    def bos_id(self) -> int | None:
        """The BOS token: the tokenizer's, or the one named for a model without a tokenizer; None where there is none."""
        return bos_of(self.tokenizer) if self.tokenizer is not None else self.bos

    def with_bos(self, prepend_bos: bool | None) -> "Model":
        """The same model whose prompts open with BOS or without, or (None) as its tokenizer opens them. Raises ModelError
        where a BOS is asked for and there is none."""
        if prepend_bos and self.bos_id is None:
            raise ModelError(f"{self.name} has no BOS token to put in front of prompts")
        return self if prepend_bos == self.prepend_bos else dataclasses.replace(self, prepend_bos=prepend_bos)

    @property
    def edits(self) -> tuple[WeightEdit, ...]:
        """The edits of its weights that are on it, in the order in which they were put on."""
        return edits_on(self)

    def with_edits(self, *edits: "WeightEdit | str | Path") -> "Model":
        """The same model with edits of its weights on, each given as it is or by its file; this one stays as it was, and both
        share all weights that are the same.

        Raises ModelError for an edit that was made for another model, or is on already; FileFormatError for a file that holds
        none. An edit that was made on top of others needs these on first.
        """
        model = self
        for edit in read_edits(edits):
            model = put_on(model, edit)
        return model

    def without_edits(self, *names: str) -> "Model":
        """The same model without the edits of these names (default: without any). Where none is left, its weights are those of
        the loaded model, byte by byte; else the others are put on anew. Raises ModelError for a name of none that is on, and
        where one that is left was made on top of one that is taken off."""
        return taken_off(self, names)

    def opening(self, *, prepend_bos: bool | None = None) -> list[int]:
        """The token ids that stand in front of a prompt's own: those that the tokenizer puts there, BOS alone, or none, as
        `prepend_bos` says (default: the model's own)."""
        wanted = self.prepend_bos if prepend_bos is None else prepend_bos
        if wanted is None and self.tokenizer is not None:
            return added_in_front(self.tokenizer)
        return [self.bos_id] if wanted is not False and self.bos_id is not None else []

    def require_open_end(self, *, prepend_bos: bool | None = None) -> None:
        """Raise ModelError where the tokenizer ends every text with a token of its own, behind which no answer follows."""
        wanted = self.prepend_bos if prepend_bos is None else prepend_bos
        if wanted is None and self.tokenizer is not None and (behind := added_behind(self.tokenizer)):
            raise ModelError(
                f"{self.name}: its tokenizer ends every text with {self.to_string(behind)!r}, behind which no answer follows; "
                "say whether prompts begin with BOS (prepend_bos, --bos or --no-bos), which leaves that out"
            )

    def to_tokens(self, text: str | list[str], *, prepend_bos: bool | None = None) -> TokenBatch:
        """Tokenize; prompts of unequal length are padded on the right.

        By default the ids are those of `tokenizer(text)`, but for a second BOS where the text brings its own. Raises
        PromptError for text without tokens, ModelError without a tokenizer or where there is no BOS to prepend.

        Args:
            text: one prompt or several.
            prepend_bos: True: exactly one BOS in front; False: nothing but the text's own tokens (default: the model's own,
                which is the tokenizer's unless `with_bos` said otherwise).

        >>> import circuits
        >>> model = circuits.load_model("mini")
        >>> model.to_tokens("The cat").ids.tolist(), model.to_tokens("The cat", prepend_bos=False).ids.tolist()
        ([[0, 904, 777]], [[904, 777]])
        """
        if self.tokenizer is None:
            raise ModelError(f"{self.name} has no tokenizer: pass token ids")
        wanted = self.prepend_bos if prepend_bos is None else prepend_bos
        if wanted and self.bos_id is None:
            raise ModelError(f"{self.name} has no BOS token to put in front of prompts")
        texts = [text] if isinstance(text, str) else list(text)
        rows = [token_ids(self.tokenizer, one, prepend_bos=wanted) for one in texts]
        for one, row in zip(texts, rows, strict=True):
            if not row:
                raise PromptError(f"prompt {one!r} has no tokens")
        return TokenBatch.from_rows(rows, pad_id=self._pad_id).to(self.device)

    @property
    def _pad_id(self) -> int:
        ids = (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id, self.tokenizer.bos_token_id)
        return next((int(i) for i in ids if i is not None), 0)

    def _encode(self, text: str) -> list[int]:
        return [int(i) for i in self.tokenizer.encode(text, add_special_tokens=False)]

    def to_string(self, tokens: Sequence[int] | Tensor) -> str:
        """Text of token ids."""
        return self.tokenizer.decode([int(t) for t in tokens])

    def to_token_strings(self, tokens: Sequence[int] | Tensor) -> list[str]:
        """Text of each token id by itself; the id as digits where there is no tokenizer."""
        if self.tokenizer is None:
            return [str(int(t)) for t in tokens]
        return [self.tokenizer.decode([int(t)]) for t in tokens]

    def single_token(self, text: str) -> int:
        """The id of a text that is exactly one token. Raises PromptError naming it and its tokens otherwise."""
        ids = self._encode(text)
        if len(ids) != 1:
            raise PromptError(f"{text!r} is {len(ids)} tokens ({self.to_token_strings(ids)}), expected exactly one")
        return ids[0]

    def prepare(self, prompts: Prompts) -> TokenBatch:
        """Token batch of text, ids or a batch, on the model's device, as everything that runs the model takes it. Raises
        PromptError for ids outside the vocabulary and prompts longer than the model takes, NonFiniteError for weights that
        hold NaN or infinity."""
        self.require_finite()  # fused attention can lose a NaN on the way
        if isinstance(prompts, str | list):
            batch = self.to_tokens(prompts)
        elif isinstance(prompts, TokenBatch):
            batch = prompts.to(self.device)
        else:
            ids = prompts[None] if prompts.ndim == 1 else prompts
            batch = TokenBatch.unpadded(ids.to(self.device).long())
        low, high = int(batch.ids.min()), int(batch.ids.max())
        if low < 0 or high >= self.d_vocab:
            raise PromptError(f"token id {low if low < 0 else high} is outside {self.name}'s vocabulary of {self.d_vocab}")
        width = batch.ids.shape[1]
        if self.max_positions is not None and width > self.max_positions:
            raise PromptError(f"a prompt of {width} tokens is longer than the {self.max_positions} that {self.name} takes")
        return batch

    def run(
        self,
        prompts: Prompts,
        *,
        edits: Sequence[Edit] = (),
        patterns: Sequence[Float[Tensor, "prompt head query key"]] | None = None,
        keep: Keep = "factors",
    ) -> Run:
        """Run the model on prompts and keep what a graph search needs.

        Differentiable where gradients are enabled and something asks for them. Raises PromptError and GraphError for
        prompts and edits that do not fit the model, NonFiniteError for weights that hold NaN or infinity.

        Args:
            prompts: a text, texts, token ids or a batch.
            edits: changes of nodes on the way (`Edit`).
            patterns: attention patterns, one a layer, in place of the model's own.
            keep: "logits" alone, "factors", or "patterns" too.

        >>> import circuits
        >>> model = circuits.load_model("mini")
        >>> run = model.run("The cat sat on the")
        >>> run.logits.shape, run.z[0].shape
        (torch.Size([1, 6, 4096]), torch.Size([1, 6, 8, 32]))
        """
        if keep not in get_args(Keep):
            raise PromptError(f"keep={keep!r}: expected one of {', '.join(get_args(Keep))}")
        batch = self.prepare(prompts)
        compiled = compile_edits(edits, self.graph())
        if patterns is not None:
            self._check_patterns(patterns, batch)
        return forward(self.weights, batch, edits=compiled, patterns=patterns, keep=keep)

    def _check_patterns(self, patterns: Sequence[Tensor], batch: TokenBatch) -> None:
        prompts, width = batch.ids.shape
        expected, got = (prompts, self.n_heads, width, width), [tuple(pattern.shape) for pattern in patterns]
        if got != [expected] * self.n_layers:
            raise PromptError(f"patterns have shapes {got}, expected {self.n_layers} (one a layer) of shape {expected}")

    def node_output(self, run: Run, node: str) -> Float[Tensor, "prompt position d_model"]:
        """What a node added to the residual stream in a run; post-norms enter with the scale of that run. Head outputs
        leave out the attention's shared bias."""
        from circuits.models.outputs import node_output

        return node_output(run, node)
