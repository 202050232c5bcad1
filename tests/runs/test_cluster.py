"""A Ray cluster made for a run: its actors take shards, a killed one is replaced, and nothing of it stays."""

import importlib.util
import os
import secrets
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from circuits.errors import CircuitsError
from circuits.runs import shards
from circuits.runs.cluster import Cluster
from circuits.runs.journal import Journal
from circuits.runs.ledger import Ledger
from circuits.runs.remote import Remote, RunOver, Server
from circuits.runs.runner import Own, Runner, joining

RAY = importlib.util.find_spec("ray") is not None


def _program() -> list[int]:
    return list(shards("waiting", 60, lambda shard: time.sleep(0.2) or shard))  # type: ignore[func-returns-value]


def work(about: dict[str, Any]) -> None:
    """What an actor does: it says who it is, and takes part."""
    Path(about["folder"], f"{about['who']}.pid").write_text(str(os.getpid()))
    remote = Remote(tuple(about["address"]), bytes.fromhex(about["secret"]), about["who"], lambda: "")
    with joining(Runner(remote)):
        try:
            _program()
        except RunOver:
            return


@pytest.mark.slow
@pytest.mark.skipif(not RAY, reason="needs the extra [ray]")
def test_a_killed_actor_is_replaced_and_nothing_stays(tmp_path: Path) -> None:
    secret = secrets.token_bytes(8)
    ledger = Ledger(lambda: Journal.open(tmp_path / "journal", {}))
    cluster = Cluster("local", 2, threads=1)
    server = Server(ledger, host=cluster.host, secret=secret, about=lambda: "")
    about = {"address": list(server.address), "secret": secret.hex(), "folder": str(tmp_path)}
    cluster.start("tests.runs.test_cluster", about)
    ledger.coming = cluster.coming

    def killer() -> None:
        while not any(who.startswith("actor") for who in ledger.computed):
            time.sleep(0.02)
        who = next(who for who in ledger.computed if who.startswith("actor"))
        os.kill(int((tmp_path / f"{who}.pid").read_text()), signal.SIGKILL)

    thread = threading.Thread(target=killer)
    try:
        thread.start()
        while not ledger.workers:
            time.sleep(0.05)
        with joining(Runner(Own(ledger))):
            assert _program() == list(range(60))
        thread.join(20)
    finally:
        server.close()
        cluster.close()
        ledger.close(remove=True)
    assert sum(ledger.computed.values()) == 60 and not cluster.trouble
    assert cluster._folder is not None and not Path(cluster._folder).exists()


@pytest.mark.skipif(RAY, reason="Ray is installed")
def test_without_ray_the_extra_is_named() -> None:
    with pytest.raises(
        CircuitsError, match=r"--ray needs Ray, which is not installed: pip install 'transformer-circuits\[ray\]'"
    ):
        Cluster("local", 1, threads=1)


def test_a_cluster_where_nobody_listens_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(CircuitsError, match=f"--ray {address}: no cluster is heard there"):
            Cluster(address, 1, threads=1)
