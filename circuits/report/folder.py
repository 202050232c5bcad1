"""What was saved in a folder, read file by file; what cannot be read is said, not hidden."""

import csv
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from circuits.errors import CircuitsError, FileFormatError
from circuits.files.origins import origin_of
from circuits.files.reading import read_bytes, read_json
from circuits.files.results import LARGEST_RESULT, Result
from circuits.files.tensors import format_of_tensors, origin_of_tensors
from circuits.files.unfinished import FORMAT as UNFINISHED, unfinished_run
from circuits.graph import Circuit, Node
from circuits.graph.neuronpedia import SUFFIX, is_neuronpedia
from circuits.report.kinds import KINDS
from circuits.search import Discovery, Study
from circuits.search.studying.results import task_folder

_Kind = TypeVar("_Kind", bound=Result)
_HEADS = "head_scores.csv"
_MOST_FILES, _MOST_FOLDERS = 200, 24
_EXPORTED = (".mib.json", SUFFIX)
"""Files that say for other programs what a circuit beside them says."""
_CIRCUIT = "circuit.json"
"""The circuit of a run, where a folder holds several."""


@dataclasses.dataclass(frozen=True, eq=False)
class Saved:
    """The results of a folder or a file, by file name."""

    place: Path
    results: Mapping[str, Result]
    head_scores: Mapping[str, list[list[float]]] | None = None
    """By name `[layer][head]`, from a table of every head's scores."""
    unread: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Files that could not be read, each with the reason."""
    unfinished: tuple[str, ...] = ()
    """Runs that did not finish, a line each."""
    parts: Mapping[str, "Saved"] = dataclasses.field(default_factory=dict)
    """Of a study the folders of its tasks, by name."""
    commands: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """The command line that each file comes from, where it tells."""

    def opened(self) -> "Saved":
        """The same with the parts of a discovery as results of their own, also in the folders below."""
        found: dict[str, Result] = {}
        for name, result in self.results.items():
            if not isinstance(result, Discovery):
                found[name] = result
                continue
            parts = {"circuit": result.circuit, "verdict": result.verdict, "scores": result.scores}
            parts |= {"curve": result.curve, "screening": result.screening}
            found |= {f"{name} · {part}": value for part, value in parts.items() if value is not None}
        below = {name: part.opened() for name, part in self.parts.items()}
        return dataclasses.replace(self, results=found, parts=below)

    def first(self, kind: type[_Kind]) -> _Kind | None:
        """The first result of a kind; of circuits that of the run."""
        found = self.all(kind)
        name = _CIRCUIT if _CIRCUIT in found else next(iter(found), None)
        return None if name is None else found[name]

    def command_lines(self) -> list[str]:
        """The different command lines that the files come from."""
        return list(dict.fromkeys(line for line in self.commands.values() if line))

    def all(self, kind: type[_Kind]) -> dict[str, _Kind]:
        """All results of a kind, by file name."""
        return {name: result for name, result in self.results.items() if isinstance(result, kind)}


def read_saved(place: Path) -> Saved:
    """What a folder holds, or a file. Raises FileFormatError for a place that is not there, a file that cannot be read, and a
    folder without anything that can be shown."""
    if place.is_dir():
        return _read_folder(place)
    if not place.exists():
        raise FileFormatError(f"{place}: No such file or directory")
    line = unfinished_run(place)
    found, command = _read_file(place)
    if found is None:
        raise FileFormatError(f"{place}: not a saved result: expected a circuit or another file that circuits wrote")
    return Saved(place, {place.name: found}, unfinished=() if line is None else (line,), commands={place.name: command})


def _read_folder(folder: Path) -> Saved:
    results, unread, lines, commands = dict[str, Result](), dict[str, str](), dict[str, None](), dict[str, str]()
    files = sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
    for file in [one for one in files if one.suffix in (".json", ".safetensors")][:_MOST_FILES]:
        try:
            found, commands[file.name] = _read_file(file)
        except CircuitsError as error:
            unread[file.name] = _reason(error, file)
            continue
        if found is not None:
            results[file.name] = found
    for file in files:
        line = unfinished_run(file)
        if line is not None:
            lines[line] = None
    if any(isinstance(one, Circuit) for one in _own(results)):
        results = {name: one for name, one in results.items() if not name.endswith(_EXPORTED)}
    heads = None
    if (folder / _HEADS).is_file():
        try:
            heads = _head_scores(folder / _HEADS)
        except CircuitsError as error:
            unread[_HEADS] = _reason(error, folder / _HEADS)
    if not results and heads is None and not unread and not lines:
        raise FileFormatError(
            f"{folder}: nothing in it that a page can show: name a folder that circuits discover, induction, trace or another "
            "command wrote its files into"
        )
    studies = [one for one in results.values() if isinstance(one, Study)]
    parts = _read_parts(folder, studies, unread) if studies else {}
    return Saved(folder, results, heads, unread, tuple(lines), parts, commands)


def _read_parts(folder: Path, studies: Sequence[Study], unread: dict[str, str]) -> dict[str, Saved]:
    """The folders of a study's tasks. Another run that stands beside them is named in `unread`: it is no part of the study."""
    named = {task_folder(one.task) for study in studies for one in study.circuits}
    found = {}
    for below in sorted(one for one in folder.iterdir() if one.is_dir() and not one.name.startswith("."))[:_MOST_FOLDERS]:
        if below.name not in named:
            unread[below.name] = "not shown: no task of the study is kept there"
            continue
        try:
            found[below.name] = _read_folder(below)
        except CircuitsError as error:
            unread[below.name] = _reason(error, below)
    return found


def _own(results: Mapping[str, Result]) -> Iterator[Result]:
    """Those that are not written for other programs."""
    return (one for name, one in results.items() if not name.endswith(_EXPORTED))


def _reason(error: Exception, file: Path) -> str:
    return " ".join(str(error).removeprefix(f"{file}: ").split())


def _read_file(file: Path) -> tuple[Result | None, str]:
    """The result of a file, and its command line; None for JSON and tensors of another origin."""
    if file.suffix.lower() == ".safetensors":
        kind = format_of_tensors(file)  # of a model's weights it is empty
        return (KINDS[kind].load(file), origin_of_tensors(file)) if kind in KINDS else (None, "")
    data = read_json(file, max_bytes=LARGEST_RESULT)
    kind = data.get("format") if isinstance(data, dict) else None
    if isinstance(data, dict) and kind is None and ("cfg" in data or is_neuronpedia(data)):
        return Circuit.load(file), ""
    if not isinstance(kind, str) or kind == UNFINISHED:
        return None, ""
    if kind not in KINDS:
        if kind.startswith(("circuits-", "transformer-circuits")):
            raise FileFormatError(f"{file}: of the format {kind[:60]}, which this version does not know")
        return None, ""
    found = KINDS[kind].load(file)
    return found, origin_of(found.metadata if isinstance(found, Circuit) else data)


def _head_scores(file: Path) -> dict[str, list[list[float]]]:
    """The scores of a table of heads. Raises FileFormatError for another table."""
    try:
        rows = list(csv.DictReader(read_bytes(file).decode("utf-8").splitlines()))
        cells = {_place(row["name"]): row for row in rows}
    except (UnicodeDecodeError, csv.Error, KeyError, TypeError, CircuitsError) as error:
        raise FileFormatError(f"{file}: not a table of heads: {error}") from None
    layers, heads = (1 + max((place[axis] for place in cells), default=-1) for axis in (0, 1))
    names = [name for name in (rows[0] if rows else {}) if name not in ("name", "layer", "head", None)]
    if len(cells) != layers * heads or not names or len(cells) != len(rows):
        raise FileFormatError(f"{file}: not a table of heads: {len(rows)} rows for {layers} layers of {heads} heads")
    return {
        name: [[_number(cells[layer, head], name, file) for head in range(heads)] for layer in range(layers)] for name in names
    }


def _place(name: Any) -> tuple[int, int]:
    node = Node.parse(str(name))
    if node.layer is None or node.index is None or node.kind != "head":
        raise FileFormatError(f"{node} is no head")
    return node.layer, node.index


def _number(row: Mapping[str, Any], name: str, file: Path) -> float:
    try:
        value = float(row[name])
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise FileFormatError(f"{file}: {name} of {row.get('name')} is {str(row.get(name))[:20]!r}: expected a finite number")
    return value
