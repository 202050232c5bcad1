"""Commands that are stopped half-way and go on in the same bytes, computing nothing twice; each is a row here."""

import ast
import inspect
from pathlib import Path

import pytest

import circuits
from circuits.cli import app, running
from tests.cli.conftest import Command
from tests.cli.test_running import Counting, bytes_of

JOBS = {
    "explain a neuron": "explain m0.n7 --text TEXT --top 6",
    "explain a layer": "explain m1 --neurons 0-3 --text TEXT --top 4",
    "explain a module": "explain a1.h0 --sasc --text TEXT",
    "probe anomaly": "probe anomaly --pairs 12 --limit 600 --shuffles 20",
    "tables layers": "tables layers --text TEXT --limit 600 --memory 1",
    "tables terms": "tables terms --text TEXT --limit 600 --memory 1",
    "compose": "compose m1.n3 m0.n5 --text TEXT --share 0.1 --moves 2 --length 2",
}

THROUGH = {
    "ablate": "patching/engine/sweep",
    "behaviour": "tasks/behavioural/likelihood",
    "classify feedback": "uses/classifying/training",
    "classify inside": "uses/classifying/training",
    "classify regularise": "uses/regularising/er_test",
    "classify shortcuts": "uses/classifying/training",
    "classify stability": "uses/classifying/training",
    "classify train": "uses/classifying/training",
    "compose": "concepts/forms/composing",
    "discover": "search/methods/refining",
    "edit": "uses/editing/testing",
    "evaluate": "patching/subgraphs/subgraph",
    "explain": "lenses/explaining/explaining",
    "features attribute": "concepts/feature_nodes/attributing",
    "features circuit": "concepts/feature_nodes/judging",
    "heads letters": "patching/engine/sweep",
    "lens train": "lenses/training",
    "neuron": "lenses/neurons/triggers",
    "neurons": "probes/ranking/rank",
    "patch": "patching/engine/sweep",
    "probe": "probes/probing",
    "probe anomaly": "probes/anomalies/gaussians",
    "probe coreference": "probes/coreference/probing",
    "probe heads": "probes/patterns/classifying",
    "probe prompts": "probes/prompts/probing",
    "probe spans": "probes/spans/probing",
    "probe tree": "probes/trees/probing",
    "recall": "search/mechanisms/recall_edges",
    "tables layers": "patching/ablation/layers",
    "tables terms": "patching/ablation/terms",
    "trace": "patching/tracing/facts",
}
"""Every command that offers workers, and a file through whose shards or steps its work goes."""


def test_a_command_offers_workers_where_its_work_is_in_shards_alone() -> None:
    commands = {one.name or one.callback.__name__: one.callback for one in app.registered_commands if one.callback}
    offering = {name for name, called in commands.items() if "workers" in inspect.signature(called).parameters}
    assert offering == set(THROUGH), "give it shards, or long=False"
    for name in sorted(set(THROUGH.values())):
        tree = ast.parse((Path(circuits.__file__).parent / f"{name}.py").read_text())
        imported = [
            one for one in ast.walk(tree) if isinstance(one, ast.ImportFrom) and (one.module or "").startswith("circuits.runs")
        ]
        known = {alias.asname or alias.name for one in imported for alias in one.names if alias.name in ("shards", "steps")}
        called = {one.func.id for one in ast.walk(tree) if isinstance(one, ast.Call) and isinstance(one.func, ast.Name)}
        assert known & called, f"{name} has no shards"


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Counting:
    return Counting(monkeypatch)


@pytest.mark.parametrize("job", JOBS)
def test_a_stopped_command_goes_on_in_the_same_bytes(
    command: Command, tiny: Path, tmp_path: Path, counting: Counting, monkeypatch: pytest.MonkeyPatch, job: str
) -> None:
    monkeypatch.setattr(running, "WORTH", 0.0)
    (tmp_path / "text.txt").write_text("\n".join(f"On day {n} ship {n * n} went by; a boat waited." for n in range(40)))
    words = [str(tmp_path / "text.txt") if word == "TEXT" else word for word in JOBS[job].split()]
    ask = (*words, "--model", tiny)
    assert command(*ask, "--out", tmp_path / "whole").status == 0
    whole, counting.done = counting.done, 0
    stop = counting.most = whole // 2
    assert whole >= 2 and command(*ask, "--out", tmp_path / "out").status == 130
    counting.most = 10**9
    ended = command(*ask, "--out", tmp_path / "out")
    assert ended.status == 0 and f": {stop} shard" in ended.err
    assert counting.done == whole, "none was computed twice"
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "whole")
