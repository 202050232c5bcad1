"""Which words a probe is trained, chosen and judged on: whole sentences, drawn by a seed."""

import dataclasses

import torch
from jaxtyping import Int
from torch import Tensor

from circuits.errors import PromptError

JUDGED, CHOSEN = 0.2, 0.1
"""The shares of sentences that probes are judged on (the same ones whatever the seed) and that penalties are chosen on."""
LEAST = 10


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Numbers of words: those to train on in the order in which their sentences were drawn, to choose the penalty on, and to
    judge on."""

    train: Int[Tensor, " train"]
    develop: Int[Tensor, " develop"]
    judge: Int[Tensor, " judge"]


def split_words(labels: Int[Tensor, " word"], sentence: Int[Tensor, " word"], *, seed: int = 0) -> Split:
    """Words that have a label, split by sentence. A fifth of the sentences is judged on and is drawn once for all seeds, so
    that nothing that a seed decides has seen it; which of the rest a penalty is chosen on, and the order of the others, is
    drawn by `seed`. Raises PromptError for fewer than 10 sentences."""
    used = labels >= 0
    numbers = sentence[used].unique()
    if len(numbers) < LEAST:
        found = f"{len(numbers)} {'sentence' if len(numbers) == 1 else 'sentences'} with a labelled word"
        raise PromptError(f"{found}: a probe needs {LEAST} or more")
    fixed = numbers[torch.randperm(len(numbers), generator=torch.Generator().manual_seed(0))]
    judged = max(1, round(JUDGED * len(fixed)))
    rest = fixed[judged:]
    drawn = rest[torch.randperm(len(rest), generator=torch.Generator().manual_seed(seed))]
    chosen = max(1, round(CHOSEN * len(fixed)))
    return Split(
        train=_words_of(drawn[chosen:], sentence, used),
        develop=_words_of(drawn[:chosen], sentence, used),
        judge=_words_of(fixed[:judged].sort().values, sentence, used),
    )


def _words_of(sentences: Tensor, sentence: Tensor, used: Tensor) -> Tensor:
    """The labelled words of sentences, sentence by sentence in their order."""
    rank = torch.full((int(sentence.max()) + 1,), -1)
    rank[sentences] = torch.arange(len(sentences))
    place = rank[sentence]
    words = ((place >= 0) & used).nonzero()[:, 0]
    return words[place[words].argsort(stable=True)]
