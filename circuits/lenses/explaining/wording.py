"""What language models are asked: to explain a neuron by excerpts, and to say how active it is at each token."""

from collections.abc import Sequence

from circuits.lenses.explaining.excerpts import Excerpt

ASKED_TO_EXPLAIN = """\
A neuron of a language model is active at some tokens of a text. Below are pieces of text; behind each token where the \
neuron is active stands how much, from 1 to 10, in brackets. Say in a few words what the neuron looks for.
"""
ASKED_TO_SIMULATE = """\
A neuron of a language model is active at some tokens of a text. From what it looks for, say how active it is at each \
token of a text, as a whole number from 0 to 10. Most tokens are 0.
"""
_EXPLAINED = (
    (("We went to the beach[9] and swam in the waves[10] all day", "the ship[6] sank in the ocean[10]"), "words about the sea"),
    (("He paid 40[10] dollars for 3[8] of them", "in the year 1987[10] the firm had 12[9] shops"), "numbers"),
    (("She said that[7] he knew that[9] it was late", "I think that[10] you are right"), 'the word "that"'),
)
_SIMULATED = (
    (
        "words about the sea",
        (("We", 0), (" went", 0), (" to", 0), (" the", 0), (" beach", 9), (" in", 0), (" a", 0), (" boat", 7)),
    ),
    ("numbers", (("He", 0), (" paid", 0), (" ", 0), ("40", 9), (" dollars", 1), (" for", 0), (" ", 0), ("3", 8), (".", 0))),
)
_UNKNOWN = "unknown"
_STRONGEST = 5
"""Excerpts that a model sees (Bills et al. 2023)."""


def marked(excerpt: Excerpt, scale: float) -> str:
    """An excerpt as text, with its level behind each token where it is above 0."""
    levels = excerpt.levels(scale)
    text = "".join(token + (f"[{level}]" if level else "") for token, level in zip(excerpt.tokens, levels, strict=True))
    return " ".join(text.split())


def explaining_prompt(shown: Sequence[Excerpt], scale: float) -> str:
    """Examples made by hand, then the strongest excerpts; what a model writes next, on that line, is the explanation."""
    top = [marked(one, scale) for one in shown if one.kind == "top"][:_STRONGEST]
    parts = [*_EXPLAINED, (top, None)]
    blocks = [
        "\n".join([*(f"Text: {text}" for text in texts), "The neuron looks for:" + (f" {said}" if said else "")])
        for texts, said in parts
    ]
    return "\n\n".join([ASKED_TO_EXPLAIN, *blocks])


def one_line_token(token: str) -> str:
    """A token that stands in a line."""
    return token.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")


def simulating_examples() -> str:
    """What stands in front of every question to a model: what is asked, and examples. In the question itself no token has its
    number, so that all are asked for at once (Bills et al. 2023). There the examples lack some too; a small model takes that
    for the rule, so here they have all."""
    parts = [f"{ASKED_TO_SIMULATE}\n"]
    for said, lines in _SIMULATED:
        body = "".join(f"{token}\t{level}\n" for token, level in lines)
        parts.append(f"{_opening(said)}{body}\n")
    return "".join(parts)


def simulating_lines(explanation: str, tokens: Sequence[str]) -> list[tuple[str, bool]]:
    """Pieces of a text with a token a line, which stand behind the examples; where a piece is followed by True, a model's next
    token is how active the neuron is."""
    pieces = [(_opening(explanation), False)]
    for token in tokens:
        pieces += [(f"{one_line_token(token)}\t", True), (f"{_UNKNOWN}\n", False)]
    return pieces


def simulating_message(explanation: str, tokens: Sequence[str]) -> str:
    """What an assistant is asked: to write every token again with a number behind it."""
    lines = "\n".join(f"{one_line_token(token)}\t" for token in tokens)
    example = "".join(f"{token}\t{level}\n" for token, level in _SIMULATED[0][1])
    return (
        f"{ASKED_TO_SIMULATE}Write each of the lines below again, with a tab and the number behind it, and nothing else.\n\n"
        f"{_opening(_SIMULATED[0][0])}{example}\n{_opening(explanation)}{lines}"
    )


def sentences_prompt(about: str | None) -> str:
    """Examples made by hand; what a model writes next, on that line, is a sentence with something, or with nothing special."""
    examples = (
        ("words about the sea", ("The waves broke over the ship.", "We swam in the ocean until the tide came in.")),
        ("numbers", ("In 1987 the firm had 12 shops.", "He paid 40 dollars for 3 of them.")),
        ("nothing special", ("She opened the door and went out.", "The meeting was long and nobody spoke.")),
    )
    blocks = [f"Sentences with {said}:\n" + "\n".join(f"- {one}" for one in ones) for said, ones in examples]
    return "\n\n".join([*blocks, f"Sentences with {' '.join((about or 'nothing special').split())}:\n-"])


def sentences_message(about: str | None, count: int) -> str:
    """What an assistant is asked: so many sentences, a line each."""
    said = f"with {' '.join(about.split())}" if about else "about everyday things"
    return f"Write {count} short sentences {said}, one a line, without numbers in front and without anything else."


def _opening(explanation: str) -> str:
    return f"The neuron looks for: {' '.join(explanation.split())}\n"
