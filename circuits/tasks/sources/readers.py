"""Prompts from the files that other tools leave behind: which layout a file has is told from its content, and said."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from circuits.errors import FileFormatError, PromptError
from circuits.models import Model
from circuits.tasks.behavioural.minimal_pairs import MinimalPair, minimal_pair_prompts
from circuits.tasks.prompts import PromptPairs, Several
from circuits.tasks.sources.autocircuit import pairs_of_prompts, read_autocircuit_json, rows_of_prompts
from circuits.tasks.sources.contents import LARGEST_FILE, Contents, Row, read_contents
from circuits.tasks.sources.eap_ig import pairs_of_table, read_eap_ig_csv, rows_of_table, table_of
from circuits.tasks.sources.facts import FACTS, Fact, read_facts, read_lre_json, read_rome_json
from circuits.tasks.sources.feature_circuits import KEYS, pairs_of_prefixes, rows_of_prefixes
from circuits.tasks.sources.mib_tasks import is_task, pairs_of_tasks, rows_of_tasks
from circuits.tasks.sources.pairs import PairRow
from circuits.tasks.sources.rows import Kept, counted, fields_of, listed, parse_rows, text

__all__ = [
    "LARGEST_FILE",
    "LAYOUTS",
    "Fact",
    "PromptFile",
    "read_autocircuit_json",
    "read_eap_ig_csv",
    "read_facts",
    "read_lre_json",
    "read_prompts",
    "read_rome_json",
]


@dataclasses.dataclass(frozen=True, eq=False)
class PromptFile:
    """What was read of a file: the pairs (whose `left_out` says how many rows make none, by reason) and the layout that it
    has."""

    pairs: PromptPairs
    layout: str

    def describe(self) -> str:
        """All of that in a line, and how several answers count where there are some."""
        said = self.layout
        left_out = sum(self.pairs.left_out.values())
        rows = f"{left_out:,} of {left_out + len(self.pairs):,}"
        said += f"; {rows} rows left out: {counted(self.pairs.left_out)}" if left_out else ""
        several = self.pairs.answer_sets is not None or self.pairs.distractor_sets is not None
        return said + (f"; several answers count by the {self.pairs.several} of their logits" if several else "")


Read = Callable[..., PromptPairs]


@dataclasses.dataclass(frozen=True)
class Layout:
    """A layout that is read: its name, what a file of it looks like in a few words, what it is known by, what reads it."""

    name: str
    looks: str
    fits: Callable[[Contents], bool]
    read: Read
    rows: Callable[..., Kept[Any]]
    """`rows(contents, skip_bad=...)`: what of it can be read without a model; raises FileFormatError for what cannot."""


def check_prompts(path: str | Path, *, skip_bad: bool = False, least: int = 1) -> None:
    """Raise what `read_prompts` raises, as far as it needs no model: for a file that cannot be read, for a layout that is not
    read, for the first row that is not whole (with `skip_bad`, only where no row is). Raises FileFormatError too for a file
    with fewer than `least` different clean prompts."""
    contents = read_contents(path)
    rows = _layout_of(contents).rows(contents, skip_bad=skip_bad).values
    prompts = {str(_clean(row)) for row in rows}
    if len(prompts) < least:
        has = f"{len(rows)} row{'s' if len(rows) > 1 else ''} with one clean prompt" if prompts else "no prompt"
        raise FileFormatError(f"{path}: holds {has}; half of the pairs are held out: give {least} different ones or more")


def _clean(row: Any) -> object:
    """What stands for the clean prompt of a row that was read without a model."""
    if isinstance(row, PairRow):
        return row.clean
    if isinstance(row, Fact):
        return row.prompt
    return (row.good, row.bad) if isinstance(row, MinimalPair) else row[0]


def _layout_of(contents: Contents) -> Layout:
    layout = next((layout for layout in LAYOUTS if layout.fits(contents)), None)
    if layout is None:
        raise FileFormatError(f"{contents.path}: {_unknown(contents)}")
    return layout


def read_prompts(path: str | Path, model: Model, *, several: Several = "mean", skip_bad: bool = False) -> PromptFile:
    """Pairs of prompts from a file of any layout of `LAYOUTS`, which its content tells.

    Facts and minimal pairs are paired with one another; those without a partner are left out and counted. Raises
    FileFormatError, with the line and the reason, for the first row that does not fit, for a layout that is not read (with the
    keys that it has), and for a file in which nothing fits.

    Args:
        path: the file.
        model: whose tokenizer cuts the prompts.
        several: how several right answers (or wrong ones) of a prompt count: "mean" (the mean of their logits; their
            probabilities add up) or "max" (the largest).
        skip_bad: leave rows out that do not fit, and count them by reason.
    """
    contents = read_contents(path)
    layout = _layout_of(contents)
    try:
        pairs = layout.read(contents, model, several=several, skip_bad=skip_bad)
    except PromptError as error:
        raise FileFormatError(f"{path}: {error}") from None
    name = f"{layout.name}, {table_of(contents).task}" if contents.kind == "CSV" else layout.name
    return PromptFile(pairs, name)


def _of_facts(name: str) -> Read:
    """What reads a layout of facts, and pairs them."""

    def read(contents: Contents, model: Model, *, several: Several = "mean", skip_bad: bool = False) -> PromptPairs:
        """Read the facts, and pair them."""
        from circuits.tasks.library.facts import fact_pairs

        facts = FACTS[name][1](contents, skip_bad=skip_bad)
        pairs = fact_pairs(model, facts.values)
        return dataclasses.replace(pairs, left_out={**facts.left_out, **pairs.left_out})

    return read


def _of_minimal_pairs(contents: Contents, model: Model, *, several: Several = "mean", skip_bad: bool = False) -> PromptPairs:
    found = _minimal_pairs(contents, skip_bad=skip_bad)
    pairs = minimal_pair_prompts(model, found.values)
    alone = len(found.values) - len(pairs)
    more = {"no minimal pair calls for the opposite": alone} if alone and not pairs.left_out else pairs.left_out
    return dataclasses.replace(pairs, left_out={**found.left_out, **more})


def _minimal_pairs(contents: Contents, *, skip_bad: bool = False) -> Kept[MinimalPair]:
    def parse(row: Row) -> MinimalPair:
        """A row as a minimal pair."""
        fields = fields_of(row)
        good, bad = text(fields, "sentence_good"), text(fields, "sentence_bad")
        about = [text(fields, name) if name in fields else "" for name in ("UID", "linguistics_term")]
        return MinimalPair(good, bad, about[0] or contents.path.stem, about[1])

    return parse_rows(contents.path, contents.rows, parse, skip_bad=skip_bad)


def _rows_with(*keys: str) -> Callable[[Contents], bool]:
    """Whether a file's rows have these keys (and it is no CSV)."""
    return lambda contents: contents.kind != "CSV" and set(keys) <= contents.keys


def _layout_of_facts(name: str, looks: str, fits: Callable[[Contents], bool] | None = None) -> Layout:
    """A layout of `FACTS`."""
    known, read = FACTS[name]
    return Layout(name, looks, fits or known, _of_facts(name), read)


LAYOUTS: tuple[Layout, ...] = (
    Layout(
        "EAP-IG CSV",
        "columns clean, corrupted and others",
        lambda contents: contents.kind == "CSV" and ("clean" in contents.keys or _recognised(contents) is None),
        pairs_of_table,
        rows_of_table,
    ),
    Layout(
        "AutoCircuit JSON",
        '{"prompts": [{clean, corrupt, answers, wrong_answers}]}',
        lambda contents: "prompts" in contents.top,
        pairs_of_prompts,
        lambda contents, **how: rows_of_prompts(contents, **how)[1],
    ),
    _layout_of_facts("LRE relation", '{"name", "prompt_templates", "samples"}'),
    Layout("sparse feature circuits", ", ".join(KEYS), _rows_with(*KEYS), pairs_of_prefixes, rows_of_prefixes),
    Layout(
        "MIB task",
        "prompt, ..._counterfactual",
        lambda contents: contents.kind != "CSV" and is_task(contents.keys),
        pairs_of_tasks,
        rows_of_tasks,
    ),
    _layout_of_facts("CounterFact", "requested_rewrite", _rows_with("requested_rewrite")),
    _layout_of_facts("function-vector word pairs", "input, output", _rows_with("input", "output")),
    Layout(
        "BLiMP minimal pairs",
        "sentence_good, sentence_bad",
        _rows_with("sentence_good", "sentence_bad"),
        _of_minimal_pairs,
        _minimal_pairs,
    ),
    _layout_of_facts("ROME facts", "prompt, subject, attribute", _rows_with("prompt", "subject", "attribute")),
)
"""Every layout that `read_prompts` reads; the first that a file fits is taken."""

_UNREAD: Mapping[str, tuple[str, ...]] = {
    "EWoK (sentences against contexts: score them as minimal pairs instead)": ("Context1", "Context2", "Target1", "Target2"),
    "zsRE (questions without prompts that could be swapped)": ("src", "pred", "rephrase", "answers"),
    "RAVEL (entities and attributes, no pairs of prompts)": ("entity", "verified_attr"),
    "texts to train on": ("text",),
    "ARC questions without counterfactuals": ("question", "choices", "answerKey"),
    "a circuit file (give it to circuits evaluate or circuits info)": ("cfg", "nodes", "edges"),
    "a result of this package (its --open shows it)": ("format", "version"),
}
"""Layouts that are known and not read, by the keys that tell them."""


def _recognised(contents: Contents) -> str | None:
    """The layout of a file, if it is one of those that are known and not read."""
    keys = contents.top or contents.keys
    return next((name for name, needed in _UNREAD.items() if set(needed) <= keys), None)


def _unknown(contents: Contents) -> str:
    """What a file was recognised as, or its keys, and what can be read."""
    keys, what = contents.top or contents.keys, _recognised(contents)
    few = sorted(keys)[:12]
    has = f"{contents.kind} with the keys {listed(few)}{', ...' if len(keys) > len(few) else ''}" if keys else contents.kind
    said = f"{has}: no layout that is read" if what is None else f"{what}: not read"
    return f"{said}. Read are: " + "; ".join(f"{layout.name} ({layout.looks})" for layout in LAYOUTS)
