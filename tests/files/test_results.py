"""Every result behaves alike: one line, a table, a picture, a file that comes back, and damage refused by one kind of error."""

import copy
import dataclasses
import html
import importlib
import inspect
import json
import pkgutil
import re
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure
from safetensors.torch import load_file, save_file

import circuits
from circuits.errors import FileFormatError
from circuits.files.arrays import is_array
from circuits.files.fields import fields_of
from circuits.files.results import Result
from tests.files import examples
from tests.test_arrows import PACKAGE, ROOMS

HELPERS = ("numbers", "whole", "outcomes", "measured", "settings", "correlation", "inside_neurons")
"""What examples are made of."""
EXAMPLES: dict[str, Callable[[], Any]] = {
    name: make
    for name, make in vars(examples).items()
    if callable(make) and getattr(make, "__module__", "") == examples.__name__ and name not in HELPERS
}
OLD = Path(__file__).parent / "old"
FREE = ("metadata", "training")
"""Fields that hold any plain values."""
ALONE = ("losses",)
"""Arrays whose first axis no other field has, so that a file cannot tell that an entry is missing."""


WITH_FUNCTIONS = [room for room in ROOMS if (PACKAGE / room).is_dir() and room not in ("files", "plots", "cli")]
"""The rooms whose public functions find something."""
INGREDIENTS = "Activations Fact KnownCircuit Metric MinimalPair Model PromptFile PromptPairs Sentence ShownPrompt Task"
INGREDIENTS += " Attributing Classifier Dictionary Examples PlantedShortcut SpanSentence TokenBatch"
INGREDIENTS += " Feedback FeedbackItem LabelWords Regularisation Swaps Watching"
PAGES = "Closer Page Saved Section"
ROWS = "Effect Localisation PhaseChange SkipTrigram SkipTrigramBug Snapshot VirtualHead"
LAZY = "WeightTable"
NO_RESULTS = {*INGREDIENTS.split(), *PAGES.split(), *ROWS.split(), LAZY}
"""What public functions return beside results: what other functions take; what a page is made of; a row or a few numbers,
which results are made of; and a table of vocabulary² whose entries are computed when they are asked for."""


def classes_in(annotation: Any) -> Iterator[type]:
    """The dataclasses that an annotation names."""
    if dataclasses.is_dataclass(annotation) and isinstance(annotation, type):
        yield annotation
    elif not is_array(annotation):
        for part in typing.get_args(annotation):
            yield from classes_in(part)


def kinds(base: type = Result) -> set[type]:
    """Every kind of result in the package."""
    found = {kind for kind in base.__subclasses__() if kind.__module__.startswith("circuits.")}
    return found.union(*map(kinds, found))


def suffix(result: Result) -> str:
    """How a result's file is named."""
    return ".safetensors" if result._tensors else ".json"


def same(first: Any, second: Any) -> bool:
    """Whether two values are equal, arrays number by number (NaN is NaN), tuples and lists alike."""
    if isinstance(first, torch.Tensor):
        return first.shape == second.shape and torch.allclose(first.double(), second.double(), rtol=0, atol=0, equal_nan=True)
    if isinstance(first, tuple | list):
        return len(first) == len(second) and all(map(same, first, second))
    if isinstance(first, Mapping):
        return list(first) == list(second) and all(same(first[key], second[key]) for key in first)
    if dataclasses.is_dataclass(first) and first.__eq__.__qualname__.startswith("object"):
        return all(same(getattr(first, field.name), getattr(second, field.name)) for field in dataclasses.fields(first))
    return type(first) is type(second) and first == second


def paths(value: Any, at: tuple = ()) -> Iterator[tuple]:
    """The way to every value of a document, but for those inside free fields."""
    inside = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, item in inside:
        yield (*at, key)
        if key not in FREE:
            yield from paths(item, (*at, key))


def wrong(value: Any) -> Any:
    """A value of another type."""
    return {str: 7, bool: "x", int: "x", float: "x", list: {"x": 1}, dict: [1], type(None): {"x": [1]}}[type(value)]


def changed(document: Any, path: tuple, change: Callable[[Any, Any], None]) -> Any:
    """A copy of a document with one place changed."""
    whole = copy.deepcopy(document)
    place = whole
    for key in path[:-1]:
        place = place[key]
    change(place, path[-1])
    return whole


def test_every_kind_of_result_has_an_example_here() -> None:
    """So that one that is added is tested below, or makes this test fail."""
    for module in pkgutil.walk_packages(circuits.__path__, "circuits."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    assert {kind.__name__ for kind in kinds()} == {type(make()).__name__ for make in EXAMPLES.values()}
    assert len({kind.FORMAT for kind in kinds()}) == len(kinds()), "no two kinds share a format"


@pytest.mark.parametrize("room", WITH_FUNCTIONS)
def test_what_public_functions_return_is_a_result(room: str) -> None:
    module, checked = importlib.import_module(f"circuits.{room}"), 0
    for name in dir(module):  # some rooms load what they hold when it is asked for
        function = getattr(module, name)
        if inspect.isfunction(function) and not name.startswith("_"):
            for kind in classes_in(inspect.signature(function).return_annotation):
                assert issubclass(kind, Result) or kind.__name__ in NO_RESULTS, f"{room}.{name} returns a {kind.__name__}"
                checked += 1
    assert checked or room in ("graph", "runs")


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_result_says_itself_in_one_line(name: str) -> None:
    found = EXAMPLES[name]()
    line = repr(found)
    assert line == str(found) and "\n" not in line and len(line) < 200 and line.startswith(type(found).__name__)
    assert re.search(r"\d", line), "a number that matters"
    assert isinstance(found.summary, str) and found.summary


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_result_is_a_table_and_a_picture(name: str) -> None:
    found = EXAMPLES[name]()
    assert len(found.to_dataframe()) and isinstance(found.plot(), Figure)
    shown = found._repr_html_()
    assert "<table" in shown and "data:image/png;base64," in shown and html.escape(repr(found)) in shown
    assert "<b>" not in shown, "text of a prompt is no markup"
    assert len(shown) < 200_000


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_result_comes_back_from_its_file(name: str, tmp_path: Path) -> None:
    found = EXAMPLES[name]()
    path, again = tmp_path / f"a{suffix(found)}", tmp_path / f"b{suffix(found)}"
    found.save(path)
    back = type(found).load(path)
    assert same(found, back) and back.summary == found.summary
    back.save(again)
    found.save(path)
    assert path.read_bytes() == again.read_bytes()
    with pytest.raises(FileFormatError, match="No such file"):
        type(found).load(tmp_path / "none.json")


@pytest.mark.parametrize("name", [name for name in EXAMPLES if list(OLD.glob(f"{name}.*"))])
def test_a_file_of_an_earlier_version_is_read_and_written_alike(name: str, tmp_path: Path) -> None:
    found, (old,) = EXAMPLES[name](), OLD.glob(f"{name}.*")
    assert same(type(found).load(old), found)
    if old.suffix == ".json":
        found.save(tmp_path / "new.json")
        assert json.loads((tmp_path / "new.json").read_text()) == json.loads(old.read_text())


@pytest.mark.parametrize("name", [name for name in EXAMPLES if not EXAMPLES[name]()._tensors])
def test_a_damaged_file_is_refused_by_name(name: str, tmp_path: Path) -> None:
    found, path = EXAMPLES[name](), tmp_path / "damaged.json"
    found.save(path)
    document = json.loads(path.read_text())

    def refused(damaged: Any) -> None:
        path.write_text(json.dumps(damaged))
        with pytest.raises(FileFormatError, match=re.escape(str(path))):
            type(found).load(path)

    for place in paths(document):
        refused(changed(document, place, lambda at, key: at.__setitem__(key, wrong(at[key]))))
    spare = {key for _, how, key in fields_of(type(found)) if how.optional}
    for key in document.keys() - spare:
        refused({other: value for other, value in document.items() if other != key})
    refused({**document, "unheard of": 1})
    refused({**document, "version": 2})
    refused(list(document))
    for place in list(paths(document))[::2]:
        path.write_text(json.dumps(changed(document, place, lambda at, key: at.__delitem__(key))))
        try:
            type(found).load(path)
        except FileFormatError as error:
            assert str(path) in str(error)


@pytest.mark.parametrize("name", [name for name in EXAMPLES if EXAMPLES[name]()._tensors])
def test_a_damaged_file_of_tensors_is_refused_by_name(name: str, tmp_path: Path) -> None:
    found, path = EXAMPLES[name](), tmp_path / "damaged.safetensors"
    found.save(path)
    tensors, content = load_file(path), path.read_bytes()
    header = json.loads(json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"][found.FORMAT])

    def refused(parts: dict[str, torch.Tensor], about: Any) -> None:
        save_file(parts, path, metadata={found.FORMAT: json.dumps(about)})
        with pytest.raises(FileFormatError, match=re.escape(str(path))):
            type(found).load(path)

    for key in header:
        refused(tensors, {**header, key: wrong(header[key])})
        refused(tensors, {other: value for other, value in header.items() if other != key})
    for key, tensor in tensors.items():
        refused({other: value for other, value in tensors.items() if other != key}, header)
        if key not in ALONE:
            refused({**tensors, key: tensor[:-1].clone()}, header)
        refused({**tensors, key: tensor[..., None].clone()}, header)
        refused({**tensors, key: tensor.long() if tensor.is_floating_point() else tensor.double()}, header)
    for place in range(0, len(content), 7):
        path.write_bytes(content[:place])
        with pytest.raises(FileFormatError, match=re.escape(str(path))):
            type(found).load(path)
