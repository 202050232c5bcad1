"""What an MLP should write for a subject so that another answer follows: found by gradient descent (Meng et al. 2022)."""

import dataclasses
import math

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.errors import NonFiniteError, PromptError
from circuits.models import Model
from circuits.uses.editing.endings import Endings
from circuits.uses.editing.lookups import Lookup


@dataclasses.dataclass(frozen=True)
class ValueSearch:
    """How the new value is searched for, with the paper's numbers."""

    steps: int = 20
    """Steps of Adam at most."""
    rate: float = 0.5
    """Its step size."""
    kl: float = 0.0625
    """Weight of how far what follows the prompts that are kept moves (KL divergence, nats)."""
    decay: float = 0.5
    """Weight of the change's size, |change| / |value|², as in the released code."""
    clamp: float = 4.0
    """The change is at most so many times as long as the value."""
    stop: float = 0.05
    """End where the loss is below it."""

    def __post_init__(self) -> None:
        numbers = [self.rate, self.kl, self.decay, self.clamp, self.stop]
        if self.steps < 1 or not all(math.isfinite(number) and number >= 0 for number in numbers) or not self.rate > 0:
            raise PromptError(f"a search in {self.steps} steps with {numbers}: expected steps, and numbers from 0 on")


@dataclasses.dataclass(frozen=True, eq=False)
class NewValue:
    """What was found: the key and value of a subject, and what is to be added to the value."""

    key: Float[Tensor, " d_mlp"]
    """The mean over the prompts of all prefixes."""
    value: Float[Tensor, " d_model"]
    """What the output weights and their bias make of that key."""
    change: Float[Tensor, " d_model"]
    loss: float
    steps: int
    chance: float
    """Mean probability of the new answer over the prompts, with the change."""


def search_value(model: Model, lookup: Lookup, layer: int, search: ValueSearch | None = None) -> NewValue:
    """The change of what a layer's MLP writes at the subject's last token that makes the new answer follow all prompts.

    The loss, in nats: the new answer's mean surprise over the prompts, + `kl` times the KL divergence of what follows the kept
    prompts from what followed them, + `decay` |change| / |value|² (the released code's form). Key and value are means over
    prompts, the same that the update uses: one key throughout. Raises NonFiniteError where the search leaves what can be
    computed.
    """
    search = search or ValueSearch()
    endings = Endings.of(model, layer, *lookup.batch())
    asked = len(lookup.rows)
    with torch.no_grad():
        wide = torch.promote_types(model.dtype, torch.float32)
        key, value = endings.keys()[:asked].to(wide).mean(dim=0), endings.values()[:asked].to(wide).mean(dim=0)
        before = endings.logits()[asked:].to(wide).log_softmax(dim=-1)
    change = torch.zeros_like(value).requires_grad_(True)
    adam, norm = torch.optim.Adam([change], lr=search.rate), float(value.norm())
    for step in range(search.steps + 1):
        with torch.enable_grad():
            after = endings.logits(change).to(wide).log_softmax(dim=-1)
            surprise = -after[:asked, lookup.answer].mean()
            moved = (
                torch.einsum("pv,pv->p", after[asked:].exp(), after[asked:] - before).mean() if len(before) else surprise * 0
            )
            loss = surprise + search.kl * moved + search.decay * change.norm() / max(norm, 1e-12) ** 2
        if not bool(loss.isfinite()):
            raise NonFiniteError(f"{model.name}, layer {layer}: the search for a new value left what {model.dtype} can hold")
        if float(loss.detach()) < search.stop or step == search.steps:
            break
        adam.zero_grad()
        loss.backward()
        adam.step()
        with torch.no_grad():
            change *= min(1.0, search.clamp * norm / max(float(change.detach().norm()), 1e-12))
    chance = float(after[:asked, lookup.answer].detach().exp().mean())
    return NewValue(key.detach(), value, change.detach(), float(loss.detach()), step, chance)
