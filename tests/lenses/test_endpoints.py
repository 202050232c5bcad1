"""Servers that speak OpenAI's protocol, made for these tests: numbers by probabilities, and every way in which they fail."""

import contextlib
import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from circuits.errors import EndpointError
from circuits.lenses.explaining import explain
from circuits.lenses.explaining.endpoint import Endpoint
from circuits.lenses.explaining.excerpts import Excerpt
from tests.lenses.lexicon import LEXICON, planted_lexicon, random_text

KEY = "sk-secret-0123456789"
SHOWN = [Excerpt("top", 0, ("a", " ship", "\n"), (0.0, 2.0, 0.5))]
Answering = Callable[[dict[str, Any]], Any]


def answer(
    text: str | None, *, finish: str = "stop", refusal: str | None = None, pieces: list[Any] | None = None
) -> dict[str, Any]:
    """A chat completion."""
    message = {"role": "assistant", "content": text, "refusal": refusal}
    choice = {
        "index": 0,
        "message": message,
        "finish_reason": finish,
        "logprobs": pieces and {"content": pieces, "refusal": None},
    }
    return {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}


def piece(token: str, others: dict[str, float] | None = None) -> dict[str, Any]:
    """A token with the probabilities of what could stand in its place."""
    known = [{"token": name, "logprob": math.log(chance), "bytes": None} for name, chance in (others or {token: 1.0}).items()]
    return {"token": token, "logprob": 0.0, "bytes": None, "top_logprobs": known}


def asked_tokens(question: dict[str, Any]) -> list[str]:
    """The tokens that a question asks about."""
    lines = question["messages"][0]["content"].rpartition("The neuron looks for:")[2].split("\n")[1:]
    return [line.removesuffix("\t") for line in lines]


class Server:
    """A server on this machine that answers with what `answering` gives: a document, or a status and a text."""

    def __init__(self, answering: Answering) -> None:
        self.questions = list[dict[str, Any]]()
        self.keys = set[str | None]()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args: Any) -> None:
                pass

            def reply(self, status: int, body: str) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body.encode())))
                self.end_headers()
                self.wfile.write(body.encode())

            def do_GET(self) -> None:
                self.reply(200, json.dumps({"object": "list", "data": [{"id": "m", "object": "model", "created": 1}]}))

            def do_POST(self) -> None:
                question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.questions.append(question)
                server.keys.add(self.headers["Authorization"])
                found = answering(question)
                status, body = found if isinstance(found, tuple) else (200, json.dumps(found))
                with contextlib.suppress(BrokenPipeError):  # the client did not wait
                    self.reply(status, body)

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        """End it."""
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Answering], Server]]:
    """Starts servers, and stops them."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    servers = list[Server]()

    def start(answering: Answering) -> Server:
        """A server."""
        servers.append(Server(answering))
        return servers[-1]

    yield start
    for one in servers:
        one.stop()


def endpoint(server: Server, **options: Any) -> Endpoint:
    return Endpoint(server.url, retries=0, **options)


def test_numbers_are_means_by_probability_where_those_are_given(serve: Callable[[Answering], Server]) -> None:
    tab, ship = piece("\t", {"\t": 0.9, "1": 0.1}), piece("7", {"7": 0.5, "9": 0.25, "x": 0.25})
    pieces = [piece("a"), tab, piece("0"), piece("\n"), piece(" ship\t"), ship, *map(piece, ("\n", "\\n", "\t", "1", "0"))]
    server = serve(lambda question: answer("a\t0\n ship\t7\n\\n\t10", pieces=pieces))
    found = endpoint(server).simulate("ships", ["a", " ship", "\n"])
    assert found == pytest.approx([0.0, (0.5 * 7 + 0.25 * 9) / 0.75, 10.0])
    assert server.questions[0]["logprobs"] is True and server.questions[0]["model"] == "m" and server.keys == {f"Bearer {KEY}"}
    assert asked_tokens(server.questions[0]) == ["a", " ship", "\\n"]


def test_without_probabilities_the_number_itself_counts(serve: Callable[[Answering], Server]) -> None:
    server = serve(lambda question: answer("Sure:\na\t0\n ship 7.5\n\\n\t12"))
    assert endpoint(server, model="other").simulate("ships", ["a", " ship", "\n"]) == [0.0, 7.5, 10.0]
    assert server.questions[0]["model"] == "other"


def test_a_server_that_refuses_to_give_probabilities_is_asked_without(serve: Callable[[Answering], Server]) -> None:
    def answering(question: dict[str, Any]) -> Any:
        refused = 400, json.dumps({"error": {"message": "logprobs is not supported"}})
        return refused if "logprobs" in question else answer("a\t3")

    server = serve(answering)
    asked = endpoint(server)
    assert asked.simulate("ships", ["a"]) == [3.0] == asked.simulate("ships", ["a"]) and len(server.questions) == 3


def test_an_explanation_is_one_line(serve: Callable[[Answering], Server]) -> None:
    server = serve(lambda question: answer("The neuron looks for: ships\n at sea\n"))
    assert endpoint(server).explain(SHOWN, 2.0) == "ships at sea"
    assert "a ship[10] [2]" in server.questions[0]["messages"][0]["content"]


def test_sentences_are_lines_without_numbers(serve: Callable[[Answering], Server]) -> None:
    server = serve(lambda question: answer("1. A ship.\n\n- The sea.\n3) Waves.\n"))
    assert endpoint(server).sentences("ships", 2) == (["A ship.", "The sea."],) * 2


FAILURES: dict[str, tuple[Answering, str]] = {
    "refusal": (lambda q: answer(None, refusal="I will not"), "refuses: I will not"),
    "filter": (lambda q: answer("", finish="content_filter"), "refuses: its filter kept the answer back"),
    "unauthorised": (
        lambda q: (401, json.dumps({"error": {"message": f"bad key {KEY} given"}})),
        "answers 401: bad key … given",
    ),
    "not found": (lambda q: (404, "no such page"), "answers 404: no such page"),
    "too many": (lambda q: (429, json.dumps({"error": {"message": "slow\ndown"}})), "answers 429: slow down"),
    "broken": (lambda q: (500, "oops"), "answers 500: oops"),
    "half": (lambda q: answer("a\t0\n ship\t7"), "half an answer: 2 numbers for an excerpt of 3 tokens"),
    "cut": (lambda q: answer("a\t0\n ship\t7\n", finish="length"), "half an answer: it ended after"),
    "no choice": (lambda q: {**answer("x"), "choices": []}, "gives no answer that can be read"),
    "no document": (lambda q: (200, "<html>hello"), "gives no answer that can be read"),
    "another document": (lambda q: (200, "[1]"), "gives no answer that can be read"),
    "no message": (lambda q: {**answer("x"), "choices": [{"index": 0}]}, "gives no answer that can be read"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_is_one_line_without_the_key(serve: Callable[[Answering], Server], name: str) -> None:
    answering, said = FAILURES[name]
    with pytest.raises(EndpointError, match=said) as caught:
        endpoint(serve(answering)).simulate("ships", ["a", " ship", "\n"])
    assert "\n" not in str(caught.value) and KEY not in str(caught.value) and len(str(caught.value)) < 400


def test_a_server_that_is_slow_or_not_there_is_said(serve: Callable[[Answering], Server]) -> None:
    def slow(question: dict[str, Any]) -> Any:
        time.sleep(0.4)
        return answer("x")

    with pytest.raises(EndpointError, match=r"no answer within 0\.1 seconds"):
        endpoint(serve(slow), timeout=0.1).explain(SHOWN, 2.0)
    gone = serve(slow)
    url = gone.url
    gone.http.socket.close()
    with pytest.raises(EndpointError, match=r"cannot be reached .*: is a server running there"):
        Endpoint(url, retries=0).explain(SHOWN, 2.0)


@pytest.mark.parametrize("url", ["", "ftp://x/v1", "127.0.0.1:8000"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(EndpointError, match="is no address"):
        Endpoint.parse(url)


@pytest.mark.parametrize("url", [f"https://user:{KEY}@x/v1", f"https://x/v1?key={KEY}"])
def test_an_address_holds_no_key(url: str) -> None:
    with pytest.raises(EndpointError, match="holds no key: set OPENAI_API_KEY") as caught:
        Endpoint.parse(url)
    assert KEY not in str(caught.value)
    assert Endpoint.parse("https://x/v1#big") == Endpoint("https://x/v1", "big")


def test_what_was_scored_before_the_server_failed_is_kept(
    serve: Callable[[Answering], Server],
) -> None:
    def answering(question: dict[str, Any]) -> Any:
        if "Say in a few words" in question["messages"][0]["content"]:
            return answer("some numbers")
        if len(server.questions) > 10:
            return 503, "busy"
        return answer("\n".join(f"{token}\t{10 * (token in map(str, LEXICON))}" for token in asked_tokens(question)))

    server, heard = serve(answering), []
    name = f"endpoint:{server.url}"
    options = {"explainer": name, "simulator": name, "found": heard.append}
    found = explain(planted_lexicon(), "m0.n2", random_text(), top=4, **options)
    assert found.explanation == "some numbers" and (found.score.together.value or 0) > 0.9 and len(server.questions) == 5
    with pytest.raises(EndpointError, match="answers 503"):
        explain(planted_lexicon(), "m0.n2", random_text(), top=20, **options)
    whole, part = heard[1], heard[-1]
    assert not whole.stopped and "answers 503" in part.stopped and len(part.held) == 4
    assert KEY not in json.dumps([whole.as_json(), part.as_json()])
