"""The docstring task (Heimersheim and Janiak 2023): which argument is documented next?"""

import random
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.errors import PromptError
from circuits.models import Model
from circuits.tasks.library.wording import Case, pairs_of, sayable, single_tokens, word_list
from circuits.tasks.metric import Metric
from circuits.tasks.metrics import _checked
from circuits.tasks.prompts import PromptPairs

Corruption = Literal["random", "random_answer", "random_doc"]
_DEFINED = tuple(f"def_{index}" for index in range(1, 7))
_DOCUMENTED = ("doc_1", "doc_2")
_TEMPLATE = (
    "def {function}(self, {def_1}, {def_2}, {def_3}, {def_4}, {def_5}, {def_6}):\n"
    '    """{say_1} {say_2} {say_3}\n\n'
    "    :param {doc_1}: {say_4} {say_5}\n"
    "    :param {doc_2}: {say_6} {say_7}\n"
    "    :param"
)


def docstring(model: Model, count: int = 32, seed: int = 0, *, corruption: Corruption = "random") -> PromptPairs:
    """Pairs of a method's head with its docstring up to the third `:param`, answer: the third of the documented arguments.

    The method has six arguments: two that go first, the three that are documented in order (`def_3`, `def_4`, and
    the answer `def_5`), and one after them; the distractor is another of the six. `corruption`: "random" puts other names
    in the places of `def_3` to `def_5` and others again into the docstring (the paper's), "random_answer" only in the
    answer's place, "random_doc" only into the docstring. Positions: `def_1` to `def_6`, `doc_1`, `doc_2`, `end`. Raises
    PromptError for a vocabulary or a context that is too small, ModelError for a model without a tokenizer.
    """
    if corruption not in get_args(Corruption):
        raise PromptError(f"corruption={corruption!r}: expected one of {', '.join(get_args(Corruption))}")
    names = single_tokens(model, word_list("arguments"), least=12, what="argument names")
    plain = list(single_tokens(model, word_list("plain"), least=7, what="plain words"))
    template, draw, cases = sayable(model, [_TEMPLATE])[0], random.Random(seed), []
    for _ in range(count):
        function, *drawn = draw.sample(list(names), 12)
        defined, fresh_defined, fresh_documented = drawn[:6], drawn[6:9], drawn[9:]
        words = {f"say_{index}": word for index, word in enumerate(draw.sample(plain, 7), start=1)}
        words |= {"function": function, **dict(zip((*_DEFINED, *_DOCUMENTED), [*defined, *defined[2:4]], strict=True))}
        changed: dict[str, str] = {}
        if corruption == "random":
            changed |= dict(zip(_DEFINED[2:5], fresh_defined, strict=True))
        if corruption == "random_answer":
            changed["def_5"] = fresh_defined[0]
        if corruption in ("random", "random_doc"):
            changed |= dict(zip(_DOCUMENTED, fresh_documented, strict=True))
        distractor = draw.choice([*defined[:4], defined[5]])
        marks = {field: field for field in (*_DEFINED, *_DOCUMENTED)}
        cases.append(Case(template, words, words | changed, names[defined[4]], names[distractor], marks))
    return pairs_of(model, cases)


def docstring_metric(model: Model, pairs: PromptPairs) -> Metric:
    """The metric: the answer's logit minus the largest among the other argument names of the clean and of the corrupt
    prompt, in nats; positive = the answer is preferred to all of them.

    The names are read at the positions of the pairs that the metric is given, which may be any rows of `pairs`. Raises
    PromptError, here or there, for pairs of another task.
    """
    _names(pairs)

    def score(logits: Float[Tensor, "prompt d_vocab"], pairs: PromptPairs) -> Float[Tensor, " prompt"]:
        """Answer's logit minus the largest of the wrong arguments'."""
        wide = _checked(logits, pairs)
        names, answers = _names(pairs).to(wide.device), pairs.answers.to(wide.device)[:, None]
        wrong = wide.gather(1, names).masked_fill(names == answers, float("-inf")).max(dim=1).values
        return wide.gather(1, answers)[:, 0] - wrong

    return Metric("docstring", score, unit="nats", by_prompt=True)


def _names(pairs: PromptPairs) -> Tensor:
    """Token ids `[prompt name]` of the argument names of both prompts."""
    missing = next((name for name in (*_DEFINED, *_DOCUMENTED) if name not in pairs.positions), None)
    if missing is not None:
        raise PromptError(f"the pairs have no position {missing}; this metric is for docstring(model) alone")
    columns = torch.stack([pairs.positions[name] for name in (*_DEFINED, *_DOCUMENTED)], dim=1)
    return torch.cat([side.ids.gather(1, columns.to(side.ids.device)) for side in (pairs.clean, pairs.corrupt)], dim=1)
