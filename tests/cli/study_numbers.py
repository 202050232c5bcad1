"""What a study's pages show, held against its saved files: every number of study.md and of the page of `circuits report`."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from circuits.cli.reports.study import LIMITS
from circuits.files.words import duration
from circuits.report import read_saved, run_page
from circuits.search import Study, StudyPlan
from circuits.search.judging.verdict import HALF, SIGNIFICANT
from tests.report.samples import data_of

Saved = Mapping[str, Any]
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?")
_INTERVAL = ("effect", "low", "high")


def effect(*path: str) -> Callable[[Saved], list[float]]:
    """What a cell with an interval shows of a saved record."""

    def read(record: Saved) -> list[float]:
        for name in path:
            record = record[name] or {}
        return [record[name] for name in _INTERVAL] if record else []

    return read


def field(*path: str) -> Callable[[Saved], list[float]]:
    """What a cell with one number shows of a saved record."""

    def read(record: Any) -> list[float]:
        for name in path:
            record = None if record is None else record[name]
        return [] if record is None else [record]

    return read


def misses(circuit: Saved) -> list[float]:
    """The largest gap that is saved of circuit and model without some nodes."""
    sets = (circuit["verdict"] or {}).get("completeness", [])
    return [max(abs(one["circuit"] - one["model"]) for one in sets)] if sets else []


BEHAVIOUR = {"prompts": field("prompts"), "preferred": effect("preferred"), "less on corrupt": effect("gap")}
BEHAVIOUR |= {name: effect("right") for name in ("top token", "right")}
BEHAVIOUR |= {name: effect("clean") for name in ("metric", "metric on clean")}
CIRCUIT = {"edges": field("edges"), "nodes": lambda record: [len(record["nodes"])], "keeps": effect("verdict", "faithfulness")}
CIRCUIT |= {"p": field("verdict", "p_value"), "misses": misses}
CIRCUIT |= {"prompts": lambda record: [record["prompts_searched"], record["prompts_held_out"]]}
OVERLAP = {"shared": field("shared"), "by chance": field("expected"), "p": field("p_value")}


def check_cell(cell: Any, expected: Sequence[float]) -> None:
    """A cell shows these numbers, in this order and no other, each as near as its digits say."""
    if not isinstance(cell, str):
        assert [cell] == pytest.approx(list(expected), rel=1e-5), cell
        return
    shown = _NUMBER.findall(cell)
    assert len(shown) == len(expected), f"{cell!r} for {expected}"
    scale = 100 if "%" in cell else 1
    for text, value in zip(shown, expected, strict=True):
        digits, _, power = text.replace(",", "").partition("e")
        step = 10.0 ** (int(power or 0) - len(digits.partition(".")[2]))
        assert abs(float(text.replace(",", "")) - scale * value) <= 0.501 * step, f"{text} of {cell!r}: saved is {value}"


def check_rows(header: Sequence[str], rows: Sequence[Sequence[Any]], records: Saved, shown: Mapping[str, Any]) -> None:
    """Each row is about the record that its first cell names; every other cell with a digit is one of those that are known."""
    assert len(rows) == len(records)
    for row in rows:
        record = records[row[0]]
        for name, cell in zip(header[1:], row[1:], strict=True):
            if name in shown:
                check_cell(cell, shown[name](record))
            elif not isinstance(cell, str) or re.search(r"\d", cell):
                assert cell in record.values() or cell in record.get("words", ()), f"{cell!r} under {name} is in no file"


def saved_records(folder: Path) -> tuple[Saved, Saved, dict[str, dict[str, Saved]]]:
    """Behaviours and circuits by task, overlaps by pair and kind, as the file has them."""
    saved = json.loads((folder / "study.json").read_text())
    words = {one.task: [one.summary] for one in Study.load(folder / "study.json").circuits}
    behaviours = {one["task"]: one for one in saved["behaviours"]}
    circuits = {one["settings"]["task"]: one | {"words": words[one["settings"]["task"]]} for one in saved["circuits"]}
    overlaps: dict[str, dict[str, Saved]] = {}
    for one in saved["overlaps"]:
        names = {"names": "", "words": [" ".join(one["names"])]}
        overlaps.setdefault(f"{one['first']}, {one['second']}", {})[one["kind"]] = one | names
    return behaviours, circuits, overlaps


def check_markdown(folder: Path) -> int:
    """Every number of study.md stands in study.json or plan.json, where it belongs; how many tables there are."""
    study, plan = Study.load(folder / "study.json"), StudyPlan.load(folder / "plan.json")
    behaviours, circuits, overlaps = saved_records(folder)
    text = re.sub(r"\\(.)", r"\1", (folder / "study.md").read_text().partition("\n## ")[0])
    tables, counts = (
        re.findall(r"(?:^\|.*\n?)+", text, flags=re.MULTILINE),
        {head: len(names) for head, names in study.heads.items()},
    )
    for table in tables:
        header, _, *rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in table.splitlines()]
        if header[0] == "behaviour":
            check_rows(header, rows, behaviours, BEHAVIOUR)
        elif header[0] == "circuit":
            check_rows(header, rows, circuits, CIRCUIT)
        elif header[0] == "shared by":
            assert [row[0] for row in rows] == list(overlaps)
            for pair, *cells in rows:
                for kind, own in (("edges", cells[:3]), ("heads", cells[3:])):
                    for cell, read in zip(own, OVERLAP.values(), strict=True):
                        check_cell(cell, read(overlaps[pair][kind]))
        else:
            assert header[0].startswith("heads") and len(rows) == len(counts)
            for head, count, names in rows:
                check_cell(count, [counts[head]])
                assert names == ", ".join(study.heads[head])
        text = text.replace(table, "")
    words = " ".join(text.split())
    reasons = [*(one.why for one in (*study.behaviours, *study.circuits)), *study.left_out.values()]
    for said in (study.summary, LIMITS, *(one.mechanism for one in study.circuits), *reasons):
        words = words.replace(" ".join(said.split()), "")
    proven = sum(one.standing == "proven" for one in study.circuits)
    taken = words.rpartition("taken: ")[2].rstrip(".")
    for said in (f"{len(behaviours)} behaviour", f"{proven} circuit", f"about {duration(plan.announced)};", taken):
        assert said in words
        words = words.replace(said, "")
    for said in ("95 %", f"at most {SIGNIFICANT}", f"at least {HALF}", study.model):
        words = words.replace(said, "")
    assert not re.search(r"\d", words), f"a number that is in no file: {words}"
    return len(tables)


def check_page(folder: Path) -> int:
    """The same of the study's section of the page: all its tables and the chart; how many blocks there are with numbers."""
    behaviours, circuits, overlaps = saved_records(folder)
    sections = data_of(run_page(read_saved(folder)).html())["sections"]
    blocks = next(section["blocks"] for section in sections if section["title"] == "The study")
    seen = 0
    for block in blocks:
        if block["kind"] == "grid" and block["header"][0] != "head":
            first, about = block["header"][0], {"behaviour": (behaviours, BEHAVIOUR), "task": (circuits, CIRCUIT)}
            if first == "circuits":
                for pair, kind, *cells in block["rows"]:
                    check_rows(
                        ("pair", "shared", "by chance", "p", "names"), [(pair, *cells)], {pair: overlaps[pair][kind]}, OVERLAP
                    )
                assert len(block["rows"]) == sum(map(len, overlaps.values()))
            else:
                check_rows(block["header"], block["rows"], *about[first])
            seen += 1
        elif block["kind"] == "chart":
            (series,) = block["series"]
            for task, *point in zip(series["names"], series["y"], series["low"], series["high"], strict=True):
                assert point == pytest.approx(CIRCUIT["keeps"](circuits[task]), rel=1e-5)
            assert len(series["names"]) == sum(one["verdict"] is not None for one in circuits.values())
            seen += 1
    return seen
