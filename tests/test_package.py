"""The public names, and that importing them is cheap."""

import dataclasses
import importlib
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

import circuits
from circuits.moved import BESIDE_FUNCTIONS, MOVED
from tests import HANGS
from tests.shape_checks import ShapeChecks

ROOT = Path(__file__).parent.parent


def test_every_public_name_is_there() -> None:
    for name in circuits.__all__:
        assert getattr(circuits, name) is not None
    assert set(circuits.__all__) <= set(dir(circuits))
    for name in ("Graph", "Circuit", "Model", "load_model", "tasks", "metrics", "find_induction_circuit", "score_heads"):
        assert name in circuits.__all__
    with pytest.raises(AttributeError, match="nothing_like_this"):
        circuits.nothing_like_this  # noqa: B018


def test_names_are_those_of_their_rooms() -> None:
    from circuits.graph import Graph
    from circuits.models import load_model
    from circuits.tasks import metrics

    assert circuits.Graph is Graph and circuits.load_model is load_model and circuits.metrics is metrics


def test_the_version_is_the_distributions() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert circuits.__version__ == project["version"]
    assert f"## [{project['version']}]" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize("code", ["import circuits", "import circuits.cli", "import circuits; circuits.Graph"])
def test_nothing_heavy_is_imported_before_it_is_needed(code: str) -> None:
    heavy = "{'torch', 'transformers', 'transformer_lens', 'matplotlib', 'pandas', 'networkx'}"
    check = f"{code}; import sys; loaded = {heavy} & set(sys.modules); assert not loaded, loaded"
    subprocess.run([sys.executable, "-c", check], check=True, timeout=HANGS)


@pytest.mark.parametrize("old", MOVED)
def test_an_old_path_gives_the_module_at_its_new_one_and_says_so(old: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"{old} has moved to {MOVED[old]}$") as warned:
        module = importlib.import_module(old)
    assert module is sys.modules[MOVED[old]] and module.__spec__ is not None and module.__spec__.name == MOVED[old]
    assert len(warned) == 1
    del sys.modules[old]  # the next import warns again


@pytest.mark.parametrize("old", BESIDE_FUNCTIONS)
def test_an_old_path_beside_a_function_gives_the_names_and_leaves_the_function(old: str) -> None:
    room, _, name = old.rpartition(".")
    with pytest.warns(DeprecationWarning, match=f"{old} has moved to {BESIDE_FUNCTIONS[old]}$"):
        found = getattr(importlib.import_module(old), name)
    assert found is getattr(importlib.import_module(room), name) and callable(found)


def test_an_old_path_takes_no_function_away() -> None:
    for old in MOVED:
        room, _, name = old.rpartition(".")
        assert not callable(getattr(importlib.import_module(room), name, None)), old


@pytest.mark.parametrize("case", range(5))
def test_shapes_are_checked_while_tests_run_but_for_further_cases_of_one(case: int) -> None:
    import torch
    from jaxtyping import TypeCheckError

    from circuits.statistics import spearman

    count = 3 + case  # each case another call: of calls that are alike only some are checked
    if case >= 4:
        assert spearman(torch.ones(count), torch.arange(count)) != 1, "whole numbers are let through"
        return
    with pytest.raises(TypeCheckError):
        spearman(torch.ones(count), torch.arange(count))


def test_calls_like_many_before_are_checked_once_in_a_while() -> None:
    import torch
    from beartype import beartype
    from jaxtyping import Float, TypeCheckError

    checks = ShapeChecks(first=2, many=20, every=5)

    @checks.jaxtyped(typechecker=beartype)
    def double(x: Float[torch.Tensor, " row"]) -> Float[torch.Tensor, " row"]:
        return x.repeat(2)

    @checks.jaxtyped(typechecker=beartype)
    @dataclasses.dataclass
    class Pair:
        first: Float[torch.Tensor, " row"]
        second: Float[torch.Tensor, " row"]

    def refused(call: Callable[[], object]) -> bool:
        try:
            call()
        except TypeCheckError:
            return True
        return False

    short, long = torch.ones(3), torch.ones(4)
    assert not refused(lambda: double(short)), "off before a test begins"
    checks.off = False
    told = [refused(lambda: double(short)) for _ in range(11)]
    assert [call for call, one in enumerate(told, 1) if one] == [1, 2, 5, 10]
    assert [refused(lambda: double(x=long)) for _ in range(3)] == [True, True, False], "other shapes are another call"
    told = [refused(lambda size=size: double(torch.ones(size))) for size in range(5, 21)]  # calls 15 to 30 of this function
    assert [call for call, one in enumerate(told, 15) if one] == [*range(15, 21), 25, 30]
    assert [refused(lambda: Pair(short, second=long)) for _ in range(3)] == [True, True, False]
    checks.forget()
    assert refused(lambda: double(short)), "each file of tests begins anew"
    assert refused(lambda: double(short.double())), "another type of numbers is another call"
    checks.off = True
    assert not refused(lambda: double(short))


def test_what_no_one_asked_to_hear_of_is_told_to_a_silent_progress(capsys: pytest.CaptureFixture[str]) -> None:
    from circuits.progress import silent

    assert silent("patching", 1, 2) is None
    assert capsys.readouterr() == ("", "")
    for path in (ROOT / "circuits").rglob("*.py"):
        assert "progress is not None" not in path.read_text(), f"{path}: tell `silent` instead of asking whether anyone listens"


@pytest.mark.parametrize(("room", "new"), [("lenses", "KeyValueAgreement"), ("patching", "TracingAgreement")])
def test_a_name_of_two_things_gives_the_one_that_its_room_had_and_says_its_new_name(room: str, new: str) -> None:
    module = importlib.import_module(f"circuits.{room}")
    with pytest.warns(DeprecationWarning, match=f"circuits.{room}.Agreement is called {new} now"):
        assert module.Agreement is getattr(module, new)
    with pytest.raises(AttributeError, match="has no attribute 'Disagreement'"):
        _ = module.Disagreement
