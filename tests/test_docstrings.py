"""What docstrings and comments promise: examples run, every parameter has its line, reasons stand where the code is hard."""

import doctest
import importlib
import inspect
import pkgutil
import re
import types
from pathlib import Path

import pytest

import circuits
from circuits.tasks.metric import Metric

ROOT = Path(circuits.__file__).parent
MODULES = sorted(found.name for found in pkgutil.walk_packages([str(ROOT)], "circuits.") if not found.name.endswith("__main__"))
FUNCTIONS = [name for name in vars(circuits)["__all__"] if isinstance(getattr(circuits, name), types.FunctionType)]
ENGINE = [*(ROOT / "patching/engine").glob("*.py"), *(ROOT / "patching/subgraphs").glob("*.py")]


def with_examples() -> list[str]:
    """Modules in whose text an example stands."""
    paths = {name: ROOT.parent / name.replace(".", "/") for name in MODULES}
    texts = {name: path / "__init__.py" if path.is_dir() else path.with_suffix(".py") for name, path in paths.items()}
    return [name for name, path in texts.items() if ">>> " in path.read_text()]


def examples_of(module: types.ModuleType) -> list[doctest.DocTest]:
    """Those of its functions and classes, and of metrics, which are values."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    metrics = {name: value for name, value in vars(module).items() if isinstance(value, Metric) and name in value.name}
    found = finder.find(module) + [one for name, value in metrics.items() for one in finder.find(value, name, module=module)]
    return [one for one in found if one.examples]


@pytest.mark.parametrize("name", with_examples())
def test_examples_print_what_they_say(name: str) -> None:
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    examples = examples_of(importlib.import_module(name))
    assert sum(runner.run(example).failed for example in examples) == 0
    assert examples


def test_the_main_names_have_examples() -> None:
    wanted = [circuits.load_model, circuits.Model.run, circuits.Edit, circuits.Graph, circuits.Circuit, circuits.logits]
    wanted += [
        circuits.PromptPairs.from_text,
        circuits.metrics.logit_difference,
        circuits.patch_nodes,
        circuits.attribute_edges,
    ]
    wanted += [circuits.score_heads, circuits.logit_lens, circuits.compare, circuits.roc, circuits.find_phase_change]
    assert [one for one in wanted if ">>> " not in (one.__doc__ or "")] == []


def lines_a_parameter(doc: str) -> dict[str, str]:
    """The list of parameters of a docstring: name → what it says."""
    listed = inspect.cleandoc(doc).partition("\nArgs:\n")[2].partition("\n\n")[0]
    return {name: said.strip() for name, said in re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)$", listed, re.MULTILINE)}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_parameter_has_a_line(name: str) -> None:
    function = getattr(circuits, name)
    assert list(lines_a_parameter(function.__doc__)) == list(inspect.signature(function).parameters)


def test_a_list_that_lacks_a_parameter_is_seen() -> None:
    assert lines_a_parameter(
        "One.\n\n    Args:\n        a: first,\n            and more.\n        b: second.\n\n    Raises."
    ) == {
        "a": "first,\n        and more.",
        "b": "second.",
    }
    assert lines_a_parameter("One sentence about `a`.") == {}


def test_the_engine_says_why() -> None:
    lines = [line.strip() for path in ENGINE for line in path.read_text().splitlines()]
    assert len(ENGINE) > 10
    assert sum(line.startswith("#") for line in lines) >= 0.015 * len(lines)


def test_tests_that_comments_cite_exist() -> None:
    comments = "\n".join(line for path in ROOT.rglob("*.py") for line in path.read_text().splitlines() if "# " in line)
    cited = set(re.findall(r"\btest_[a-z0-9_]{12,}", comments))
    tests = "\n".join(path.read_text() for path in Path(__file__).parent.rglob("test_*.py"))
    assert cited
    assert cited <= set(re.findall(r"^def (test_\w+)", tests, re.MULTILINE))


def test_the_package_says_that_it_is_typed() -> None:
    assert (ROOT / "py.typed").is_file()
