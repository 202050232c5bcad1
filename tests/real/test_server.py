"""A real server on this machine, `transformers serve` with the pretrained model, explains: started and stopped here."""

import importlib.util
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from circuits.errors import EndpointError
from circuits.lenses.explaining.endpoint import Endpoint
from circuits.lenses.explaining.excerpts import Excerpt
from experiments import real_model

FOLDER = Path(os.environ.get("CIRCUITS_REAL_MODEL", real_model.FOLDER))
DIRECTORY = FOLDER / real_model.NAME
_STARTS = 120
"""Seconds within which the server must answer."""
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not (DIRECTORY / "config.json").is_file(), reason="`make real` fetches the model"),
    pytest.mark.skipif(
        not all(map(importlib.util.find_spec, ("fastapi", "uvicorn", "openai"))),
        reason="`make setup` installs what `transformers serve` needs",
    ),
]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The address of the server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    line = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(DIRECTORY.resolve())]
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    server = subprocess.Popen([*line, "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"], env=offline)
    try:
        began = time.monotonic()
        while True:
            assert server.poll() is None, "the server ended"
            assert time.monotonic() - began < _STARTS, "the server does not answer"
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                    break
            except OSError:
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        try:
            server.wait(timeout=20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def test_a_server_explains_writes_and_simulates_or_says_in_one_line_why_not(url: str) -> None:
    endpoint = Endpoint.parse(f"{url}#{DIRECTORY.resolve()}")
    shown = [Excerpt("top", 0, ("The", " ship", " sank"), (0.0, 4.0, 1.0)), Excerpt("top", 1, ("A", " boat"), (0.0, 3.0))]
    said = endpoint.explain(shown, 4.0)
    assert said and "\n" not in said
    having, lacking = endpoint.sentences("words about the sea", 2)
    assert having and lacking
    try:
        found = endpoint.simulate("words about the sea", ["The", " ship", " sank"])
    except EndpointError as error:  # so small a model does not always write every line
        assert "half an answer" in str(error) and "\n" not in str(error)
    else:
        assert len(found) == 3 and all(0 <= value <= 10 for value in found)


def test_a_model_that_the_server_lacks_is_one_line(url: str) -> None:
    with pytest.raises(EndpointError, match=r"answers \d{3}: ") as caught:
        Endpoint(url, "nobody/nothing", retries=0).ask("Hello", most=3)
    assert "\n" not in str(caught.value)
