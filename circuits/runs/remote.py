"""Workers in other processes: they run the same program, and ask the process that keeps the journal for shards.

What goes over the connection is bytes of JSON and of tensors, never Python objects. Both ends prove that they know the run's
secret before anything else is read.
"""

import contextlib
import json
import os
import socket
import threading
from collections.abc import Callable
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener
from typing import Any

from circuits.errors import CircuitsError, FileFormatError
from circuits.runs.ledger import Done, Ledger, Lost, Take
from circuits.runs.runner import Share

_SIZE = 4


class RunOver(BaseException):
    """The run that a worker works for needs it no longer. Nothing in the program catches it on its way out."""


class Server:
    """Answers the workers of a run, a thread each."""

    def __init__(self, ledger: Ledger, *, host: str | None, secret: bytes, about: Callable[[], str]) -> None:
        """`host`: what other machines call this one (None: workers are on this machine); `about`: what is run on, in a word
        that is the same in every process that has the same model."""
        self.ledger, self.secret, self.about = ledger, secret, about
        self._listener = Listener((host or "127.0.0.1", 0), backlog=64, authkey=secret)
        self.address: tuple[str, int] = self._listener.address  # type: ignore[assignment]
        self._closed = False
        self._connections: list[Connection] = []
        threading.Thread(target=self._accept, name="circuits workers", daemon=True).start()

    def _accept(self) -> None:
        while not self._closed:
            try:
                connection = self._listener.accept()
            except (OSError, EOFError, AuthenticationError):  # somebody who does not know the secret, or gone at once
                continue
            _keep_alive(connection)
            self._connections.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: Connection) -> None:
        who = ""
        try:
            hello, _ = _received(connection)
            who = hello["who"]
            self.ledger.joined()
            while not self._closed:
                _send(connection, *self._answer(who, *_received(connection)))
        except (EOFError, OSError, ValueError, KeyError, FileFormatError):  # the last: of a full disk
            pass
        finally:
            connection.close()
            if who and not self._closed:
                self.ledger.gone(who)

    def _answer(self, who: str, asked: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
        key = asked.get("place", 0), asked.get("shard", 0)
        if asked["do"] == "give":
            self.ledger.give(key, data, asked["seconds"], who)
            return {}, b""
        if asked["do"] == "leave":
            self.ledger.trouble = asked["why"]
            return {}, b""
        if asked["do"] == "keep":
            self.ledger.keep(key[0], data, asked["seconds"])
            return {}, b""
        if asked["do"] == "so far":
            found = self.ledger.so_far(key[0])
            return ({}, b"") if found is None else ({"seconds": found[1]}, found[0])
        if asked["do"] == "fail":
            self.ledger.fail(key, asked["why"])
            return {}, b""
        answer = self.ledger.ask(key[0], asked["what"], asked["count"], key[1], who)
        if answer is None or asked["about"] != self.about():
            return {"over": True}, b""
        if isinstance(answer, Done):
            return {"done": True}, answer.data
        return ({"take": answer.shard} if isinstance(answer, Take) else {"lost": answer.why}), b""

    def close(self) -> None:
        """No more answers."""
        self._closed = True
        self._listener.close()
        for connection in self._connections:  # each thread closes its own, as soon as it hears the end
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as line:
                line.shutdown(socket.SHUT_RDWR)


class Remote(Share):
    """The ledger of another process, as what a worker's shards are asked of. `about` as in `Server`."""

    def __init__(self, address: tuple[str, int], secret: bytes, who: str, about: Callable[[], str]) -> None:
        self.about = about
        try:
            self._connection = Client(address, authkey=secret)
        except (OSError, EOFError, AuthenticationError) as error:
            raise CircuitsError(f"the run at {address} cannot be reached: {error}") from None
        _send(self._connection, {"who": who}, b"")

    def begin(self, place: int, what: str, count: int) -> None:
        """The process that keeps the journal says which shards there are."""

    def ask(self, place: int, what: str, count: int, shard: int) -> Done | Take | Lost:
        """The shard that is wanted next, or what is to be done meanwhile. Raises RunOver where there is no more to do."""
        asked = {"do": "ask", "place": place, "what": what, "count": count, "shard": shard, "about": self.about()}
        answer, data = self._call(asked)
        if "over" in answer:
            raise RunOver
        if "done" in answer:
            return Done(data)
        return Take(answer["take"]) if "take" in answer else Lost(answer["lost"])

    def give(self, place: int, shard: int, data: bytes, seconds: float) -> None:
        """What a shard found."""
        self._call({"do": "give", "place": place, "shard": shard, "seconds": seconds}, data)

    def keep(self, place: int, data: bytes, seconds: float) -> None:
        """What the only shard of a place has come to so far."""
        self._call({"do": "keep", "place": place, "shard": 0, "seconds": seconds}, data)

    def so_far(self, place: int) -> tuple[bytes, float] | None:
        """What the only shard of a place had come to, and how long that took; None where there is nothing of it."""
        answer, data = self._call({"do": "so far", "place": place, "shard": 0})
        return (data, answer["seconds"]) if "seconds" in answer else None

    def fail(self, place: int, shard: int, error: Exception, *, aside: bool) -> None:
        """A shard ended in an error."""
        self._call({"do": "fail", "place": place, "shard": shard, "why": f"{type(error).__name__}: {error}"})

    def leave(self, why: str) -> None:
        """Tell the run why this worker can be of no use."""
        self._call({"do": "leave", "why": why})

    def _call(self, asked: dict[str, Any], data: bytes = b"") -> tuple[dict[str, Any], bytes]:
        try:
            _send(self._connection, asked, data)
            return _received(self._connection)
        except (EOFError, OSError):
            raise RunOver from None


def _keep_alive(connection: Connection) -> None:
    """A worker whose machine is gone without a word is lost within half a minute, not waited for."""
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
            if hasattr(socket, option):
                line.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def _send(connection: Connection, said: dict[str, Any], data: bytes) -> None:
    head = json.dumps(said).encode()
    connection.send_bytes(len(head).to_bytes(_SIZE, "little") + head + data)


def _received(connection: Connection) -> tuple[dict[str, Any], bytes]:
    message = connection.recv_bytes()
    end = _SIZE + int.from_bytes(message[:_SIZE], "little")
    return json.loads(message[_SIZE:end]), message[end:]
