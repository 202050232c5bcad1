"""What `circuits edit` asks: which facts are changed, in which layers, and what is asked afterwards."""

import dataclasses
import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import circuits
from circuits.cli.prompts import names_of, require_text
from circuits.errors import FileFormatError, PromptError

if TYPE_CHECKING:
    from circuits.tasks.rewrites import Rewrite

SPACED = "PROMPT and --subject go together: the subject is the part of the prompt that the fact is about"


@dataclasses.dataclass(frozen=True, kw_only=True)
class EditQuestion:
    """A prompt with its subject and the new answer, the facts of a file, or, with neither, those that come with the package."""

    prompt: str | None = None
    subject: str | None = None
    to: str | None = None
    paraphrases: tuple[str, ...] = ()
    neighbours: tuple[str, ...] = ()
    facts: Path | None = None
    count: int | None = None
    together: bool = False
    layers: str | None = None
    keep: float = 0.0
    skip_bad: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        several = [("--paraphrase", text) for text in self.paraphrases]
        for what, text in (("the prompt", self.prompt), ("--subject", self.subject), ("--to", self.to), *several):
            if text is not None:
                require_text(text, what)
        if (self.prompt is None) != (self.subject is None):
            raise PromptError(SPACED)
        if (self.prompt is None) != (self.to is None):
            raise PromptError("PROMPT and --to go together: the text of --to is the new answer")
        if self.prompt is not None and (self.facts is not None or self.count is not None or self.together):
            raise PromptError(
                "PROMPT is one fact; --facts, --count and --together are about several: leave out one or the other"
            )
        if self.prompt is None and (self.paraphrases or self.neighbours):
            raise PromptError("--paraphrase and --neighbour are asked besides a PROMPT: give one")
        named = names_of(self.layers or "")
        if "all" in named and len(named) > 1:
            raise PromptError(f"--layer {self.layers}: all is every layer, and stands by itself")
        if self.skip_bad and self.facts is None:
            raise PromptError("--skip-bad is about rows of a file: it needs --facts")
        if not 0 <= self.keep < math.inf or (self.keep and not self.together):
            raise PromptError(f"--keep {self.keep:g}: expected a number of tokens from 0 on, with --together")
        if self.prompt is not None and self.prompt.rstrip().endswith(self.to or " "):
            raise PromptError(f"the prompt ends in {self.to!r} already: end it before the answer")
        for one in self.neighbours:
            if neighbour_of(one)[1].strip() == (self.to or "").strip():
                raise PromptError(f"--neighbour {one!r} has the new answer as its own: it could not tell whether that spreads")

    @property
    def many(self) -> bool:
        """Whether several facts are edited."""
        return self.facts is not None or self.count is not None or self.together

    def chosen(self, model: "circuits.Model") -> list[int] | None:
        """The layers that are edited; None for the default one. Raises PromptError for what is no layer of the model."""
        if self.layers is None:
            return None
        if self.layers.strip() == "all":
            return list(range(model.n_layers))
        found = list[int]()
        for name in names_of(self.layers):
            if not name.isascii() or not name.isdigit() or len(name) > 6 or int(name) >= model.n_layers:
                there = f"0 to {model.n_layers - 1}" if model.n_layers > 1 else "0"
                raise PromptError(
                    f"--layer {self.layers}: {name!r} is no layer of {model.name}; expected numbers from {there}, or all"
                )
            found.append(int(name))
        if not found:
            raise PromptError(f"--layer {self.layers!r} names no layer: expected numbers, or all")
        return sorted({*found})


def require_folder(path: Path) -> None:
    """Raise FileFormatError where statistics cannot be kept in a folder: it is a file, or nothing can be written there."""
    if path.exists() and not path.is_dir():
        raise FileFormatError(f"--statistics {path}: is no folder")
    try:
        there = next(one for one in (path, *path.absolute().parents) if one.exists())
        tempfile.TemporaryDirectory(dir=there).cleanup()
    except OSError as error:
        raise FileFormatError(f"--statistics {path}: cannot be written: {error.strerror or error}") from None


def neighbour_of(text: str) -> tuple[str, str]:
    """A prompt about another subject and its answer, from words such as `The Colosseum is in= Rome`. Raises PromptError."""
    prompt, equals, answer = text.rpartition("=")
    if not equals or not prompt.strip() or not answer.strip():
        raise PromptError(f'--neighbour is {text!r}; expected "PROMPT=ANSWER", such as "The Colosseum is in= Rome"')
    return prompt.rstrip(), answer


def reference_of(path: Path | None) -> tuple[str, ...]:
    """The paragraphs of a reference text. Raises FileFormatError for a file without one."""
    from circuits.tasks.sources.corpus import read_text

    if path is None:
        return ()
    found = tuple(" ".join(part.split()) for part in read_text(path).split("\n\n") if part.strip())
    if not found:
        raise FileFormatError(f"{path}: holds no text to compare with")
    return found


def one_rewrite(model: "circuits.Model", question: EditQuestion) -> "Rewrite":
    """The fact that a prompt asks for, with what the model says now, and what the built-in table of facts has of its relation.
    Raises PromptError for a subject that is not in the prompt, a new answer of several tokens, and one that is the old one."""
    import random

    from circuits.tasks.answers import first_of, one_token
    from circuits.tasks.library.facts import mini_facts
    from circuits.tasks.rewrites import NEIGHBOURS, PARAPHRASES, Rewrite, relation_asked, relations_of
    from circuits.tasks.subjects import subject_columns, with_subject

    assert question.prompt is not None and question.subject is not None and question.to is not None
    prompt, subject, to = question.prompt.rstrip(), question.subject.strip(), question.to
    model.require_open_end()
    batch = model.prepare(prompt)
    subject_columns(model, prompt, subject, batch)
    new = one_token(model, f"the prompt {prompt!r}", prompt, to, what="new answer", joined=None)
    logits = model.run(batch, keep="logits").logits[0, -1]
    said = int(logits.argmax())
    if said == new:
        raise PromptError(f"the model says {to!r} after the prompt {prompt!r} already: nothing is to be edited")
    old, words = model.to_string([said]), with_subject(prompt, subject, "{}")
    found = relation_asked(model, relations_of(mini_facts()), prompt, subject, said)
    paraphrases, neighbours = (), ()
    if found is not None:
        how = {"paraphrases": PARAPHRASES, "neighbours": NEIGHBOURS, "draw": random.Random(question.seed)}
        paraphrases, neighbours = found[1].of(words, subject, old.strip(), to.strip(), **how)
    given = tuple(neighbour_of(one) for one in question.neighbours)
    for other, answer in given:
        if first_of(model, other, answer) == first_of(model, other, to):
            raise PromptError(f"--neighbour {f'{other}={answer}'!r} begins its answer as {to!r}: it could not tell them apart")
    name = "" if found is None else found[0]
    return Rewrite(prompt, subject, old, to, name, question.paraphrases or paraphrases, given or neighbours)
