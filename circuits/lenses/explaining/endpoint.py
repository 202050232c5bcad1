"""A server that speaks OpenAI's protocol, here or elsewhere, asked to explain neurons and to simulate them.

It gets the excerpts that are shown with their activations, explanations, and the tokens of the held-out excerpts; nothing else.
The key is read from the environment variable OPENAI_API_KEY by the client, and stands in no file and no message.
"""

import contextlib
import dataclasses
import functools
import math
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from circuits.errors import AnswerError, EndpointError, ModelError, shown as quoted
from circuits.lenses.explaining.excerpts import LEVELS, Excerpt
from circuits.lenses.explaining.wording import explaining_prompt, sentences_message, simulating_message

KEY = "OPENAI_API_KEY"
_TOKENS_A_LINE = 12
"""Tokens that an answer may take for each token that is simulated."""
_LONGEST = 60
"""Tokens of an explanation."""


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """A server at `url` (such as `http://127.0.0.1:8000/v1`) and its model, by name; None: the first that it lists."""

    url: str
    model: str | None = None
    timeout: float = 120.0
    """Seconds that an answer may take."""
    retries: int = 2
    """How often a failed question is asked again."""

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise EndpointError(f"{quoted(self.url)} is no address: expected one such as http://localhost:8000/v1")
        if parts.username or parts.password or parts.query:
            raise EndpointError(f"the address of an endpoint holds no key: set {KEY} in the environment instead")

    @classmethod
    def parse(cls, name: str) -> "Endpoint":
        """An address, with `#MODEL` behind it where a model is named."""
        url, _, model = name.partition("#")
        return cls(url, model or None)

    def explain(self, shown: Sequence[Excerpt], scale: float) -> str:
        """What the server's model writes about the strongest excerpts. Raises EndpointError where there is no answer."""
        text = self.ask(explaining_prompt(shown, scale), most=_LONGEST)[0]
        found = " ".join(text.split()).removeprefix("The neuron looks for:").strip()
        if not found:
            raise AnswerError(f"{self.url} gave an empty explanation")
        return found

    def simulate(self, explanation: str, tokens: Sequence[str]) -> list[float]:
        """The expected activation at each token: the mean of the numbers by their probabilities, where the server gives
        probabilities, else the number that it writes. Raises AnswerError where a token has no number, EndpointError where there
        is no answer."""
        most = _TOKENS_A_LINE * len(tokens) + 16
        text, pieces = self.ask(simulating_message(explanation, tokens), most=most, chances=True)
        lines = _numbered_lines(text)
        if len(lines) != len(tokens):
            raise AnswerError(
                f"{self.url} gave half an answer: {len(lines)} numbers for an excerpt of {len(tokens)} tokens; "
                "try another model or shorter excerpts"
            )
        return [_expected(text, place, pieces) for place in lines]

    def sentences(self, explanation: str, count: int) -> tuple[list[str], list[str]]:
        """So many sentences with what an explanation says, and so many about everyday things, as far as the server writes them.
        Raises EndpointError where there is no answer."""
        found = []
        for about in (explanation, None):
            text = self.ask(sentences_message(about, count), most=_LONGEST * count)[0]
            lines = [re.sub(r"^\s*(?:\d+[.)]|[-*•])\s*", "", line).strip() for line in text.splitlines()]
            found.append([line for line in lines if line][:count])
        return found[0], found[1]

    def ask(self, message: str, *, most: int, chances: bool = False) -> tuple[str, list[Any]]:
        """The answer to a message, and where asked for and given the probabilities of each of its pieces."""
        client = self._client
        import openai

        wanted = {"logprobs": True, "top_logprobs": 20} if chances and not self._plain else {}
        with self._failing():
            asked = {"messages": [{"role": "user", "content": message}], "max_tokens": most, "temperature": 0.0}
            asked["model"] = self.model or self._first_model
            try:
                answer = client.chat.completions.create(**asked, **wanted)
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                if not wanted or "logprob" not in _reason(error):
                    raise
                self._plain.append(True)  # a server that has no probabilities to give is not asked for them again
                answer = client.chat.completions.create(**asked)
            choice = answer.choices[0]
            text, refusal = choice.message.content or "", getattr(choice.message, "refusal", None)
            given = getattr(choice, "logprobs", None)
            pieces = list(given.content or []) if given is not None else []
        if refusal or choice.finish_reason == "content_filter":
            raise AnswerError(f"{self.url} refuses: {_clean(refusal or 'its filter kept the answer back')}")
        if choice.finish_reason == "length" and chances:
            raise AnswerError(f"{self.url} gave half an answer: it ended after {most} tokens")
        return text, pieces

    @functools.cached_property
    def _client(self) -> Any:
        try:
            import openai
        except ImportError:
            raise ModelError("endpoints need the openai client: pip install 'transformer-circuits[endpoint]'") from None
        key = os.environ.get(KEY) or "none"  # servers of one's own want none, the client wants some
        return openai.OpenAI(api_key=key, base_url=self.url, timeout=self.timeout, max_retries=self.retries)

    @functools.cached_property
    def _plain(self) -> list[bool]:
        """Not empty once the server has refused to give probabilities."""
        return []

    @functools.cached_property
    def _first_model(self) -> str:
        names = [one.id for one in self._client.models.list().data or []]
        if not names:
            raise EndpointError(f"{self.url} lists no model: name one, endpoint:{self.url}#MODEL")
        return names[0]

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        """Say in one line what went wrong, without the key."""
        import openai

        try:
            yield
        except openai.APITimeoutError:
            raise EndpointError(f"{self.url} gave no answer within {self.timeout:g} seconds") from None
        except openai.APIConnectionError as error:
            why = _clean(error.__cause__ or error)
            raise EndpointError(f"{self.url} cannot be reached ({why}): is a server running there?") from None
        except openai.APIStatusError as error:
            raise EndpointError(f"{self.url} answers {error.status_code}: {_clean(_reason(error))}") from None
        except (openai.OpenAIError, ValueError, AttributeError, IndexError, TypeError) as error:
            raise EndpointError(f"{self.url} gives no answer that can be read: {_clean(error)}") from None


def _numbered_lines(text: str) -> list[int]:
    """Where in a text the last number of each line with a number behind a tab or a space begins."""
    return [match.start(1) for match in re.finditer(r"[\t ](\d+(?:\.\d+)?)[ \t\r]*$", text, re.MULTILINE)]


def _expected(text: str, place: int, pieces: Sequence[Any]) -> float:
    """The mean of the numbers by the probabilities of the piece that begins there; the number itself where it has none."""
    written = re.match(r"\d+(?:\.\d+)?", text[place:])
    assert written is not None
    start = 0
    for piece in pieces:
        end = start + len(piece.token)
        if start <= place < end:
            # A piece may hold the tab as well; one that holds a part of the number says too little.
            if piece.token.strip() == written[0] and piece.top_logprobs:
                known = [(one.token.strip(), math.exp(one.logprob)) for one in piece.top_logprobs]
                chances = [(int(name), chance) for name, chance in known if name.isdecimal() and int(name) <= LEVELS]
                total = sum(chance for _, chance in chances)
                if total > 0:
                    return sum(number * chance for number, chance in chances) / total
            break
        start = end
    return min(float(written[0]), float(LEVELS))


def _reason(error: Any) -> str:
    """What a server says of an error: the message in its document, or all that it sent."""
    body = error.body
    said = body.get("message") if isinstance(body, dict) else None
    return str(said or error.response.text or error.message)


def _clean(said: object) -> str:
    """A foreign message on one short line, without the key."""
    text = " ".join(str(said).split())
    key = os.environ.get(KEY)
    if key:
        text = text.replace(key, "…")
    return re.sub(r"\bsk-[\w*-]+", "…", text)[:200]
