"""`circuits lens`: the logit lens and the tuned lens of one prompt, their files and their report."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import typer

from circuits.cli.loading import load
from circuits.cli.measured import naming_options, paired, save_figure
from circuits.cli.output import default_directory, staged
from circuits.cli.progress import ProgressBars
from circuits.cli.prompts import require_text
from circuits.cli.text import one_line, print_json, printable, table
from circuits.errors import FileFormatError, GraphError, PromptError
from circuits.lenses import Lens, LensComparison, TunedLens, compare_lenses, logit_lens, train_tuned_lens
from circuits.models import Model, TokenBatch
from circuits.plots import lens_comparison_figure, lens_curves_figure, lens_figure
from circuits.tasks.sources.corpus import read_text, text_rows

_HELD_OUT, _LEAST, _MOST = 10, 2, 64
"""The share of a text that is held out (one in so many rows), and the least and the most rows that lenses are compared on."""
_CELL, _LONGEST = 10, 100
"""Letters of a token in the table, and of a line."""
_SAVE_EVERY = 20
_COMPARISON = ("comparison.json", "comparison.png")
FILES = {
    "lens.json": "everything read; circuits lens --open and circuits.Lens.load read it",
    "lens.csv": "all of it as a table",
    "lens.png": "layers by tokens",
    "curves.png": "entropy, divergence and loss by layer",
    "comparison.json": "both lenses on held-out text",
    "comparison.png": "the same as a figure",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """What is read."""

    prompt: str
    answer: str | None
    nodes: list[str] | None
    sublayers: bool
    top: int
    bos: bool | None
    budget: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """Through which tuned lens, if any, and how it is trained."""

    tuned: Path | None
    path: Path | None
    text: Path | None
    steps: int
    seed: int

    def __post_init__(self) -> None:
        if (self.path is None) != (self.text is None):
            raise PromptError("--train-tuned and --text go together: the file to train into, and the text to train on")
        if self.path is not None and self.tuned is not None:
            raise PromptError("--tuned and --train-tuned exclude each other: use a tuned lens, or train one and use it")
        if self.path is not None and self.path.suffix.lower() != ".safetensors":
            raise FileFormatError(f"{self.path}: a tuned lens is a file of tensors; give a name that ends in .safetensors")


def parse_nodes(text: str | None) -> list[str] | None:
    """The names in `a,b+c`."""
    if text is None:
        return None
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise GraphError("--nodes names no node: expected names such as a1.h2,m3,m0.n5")
    return names


def run(asked: Asked, training: Training, *, model: str, out: Path | None, device: str, dtype: str, as_json: bool) -> None:
    """Train where asked to, read, write the files, print the report."""
    require_text(asked.prompt)
    if asked.sublayers and (training.tuned is not None or training.path is not None):
        raise PromptError("--sublayers has no tuned lens: translators are for whole layers; leave out one of the two")
    text = None if training.text is None else read_text(training.text)
    folder = Path("out") / f"lens-{default_directory(model).name.removeprefix('induction-')}" if out is None else out
    with staged(folder, replacing=_COMPARISON) as staging, ProgressBars() as progress, naming_options():
        progress("loading the model", 0, 1)
        loaded = load(model, device=device, dtype=dtype)
        progress("loading the model", 1, 1)
        tokens = loaded.to_tokens(asked.prompt, prepend_bos=asked.bos)
        found = _read(loaded, tokens, asked, None, progress)
        tuned, comparison = _tuned(loaded, training, text, asked.budget, progress)
        if tuned is not None:
            found = _read(loaded, tokens, asked, tuned, progress)
        found.save(staging / "lens.json")
        files = _write(found, comparison, staging)
    _print(found, comparison, folder, files, _steps(found, training, model), as_json=as_json)


def reopen(file: Path, *, out: Path | None, as_json: bool) -> None:
    """Print a saved lens again, and write its table and figures beside it, or into `out`."""
    found, folder = Lens.load(file), file.parent if out is None else out
    if len(found.ids) > 1:
        raise PromptError(f"{file}: holds {len(found.ids)} prompts; the command shows one: read it with circuits.Lens.load")
    with staged(folder) as staging:
        files = _write(found, None, staging)
    _print(found, None, folder, files, [], as_json=as_json)


def _print(
    found: Lens,
    comparison: LensComparison | None,
    folder: Path,
    files: list[str],
    steps: list[tuple[str, str]],
    *,
    as_json: bool,
) -> None:
    if as_json:
        print_json(_as_json(found, comparison, {name: str(folder / name) for name in files}))
        return
    parts = [*_report(found, comparison), paired(f"Files in {one_line(folder)}", [(name, FILES[name]) for name in files])]
    typer.echo("\n\n".join([*parts, paired("Try next", steps)] if steps else parts))


def _read(model: Model, tokens: TokenBatch, asked: Asked, tuned: TunedLens | None, progress: ProgressBars) -> Lens:
    between = asked.sublayers and model.d_mlp and tuned is None
    return logit_lens(
        model,
        tokens,
        sites=["residual", "middle"] if between else ["residual"],
        nodes=asked.nodes,
        answers=asked.answer,
        top=asked.top,
        tuned=tuned,
        max_bytes=asked.budget,
        progress=progress,
    )


def _tuned(
    model: Model, training: Training, text: str | None, budget: int, progress: ProgressBars
) -> tuple[TunedLens | None, LensComparison | None]:
    """The tuned lens to read through, and what it is worth on the text that it was not trained on."""
    if training.path is None or text is None:
        return (None if training.tuned is None else TunedLens.load(training.tuned, model)), None
    rows = text_rows(model, text)
    held = max(_LEAST, len(rows) // _HELD_OUT)
    if len(rows) <= held:
        width = rows.ids.shape[1]
        raise PromptError(
            f"{training.text}: too short to train on: {len(rows)} × {width} tokens, expected {held + 1} × {width} or more"
        )
    training.path.parent.mkdir(parents=True, exist_ok=True)
    try:
        tuned = train_tuned_lens(
            model,
            rows[: len(rows) - held],
            steps=training.steps,
            seed=training.seed,
            path=training.path,
            save_every=_SAVE_EVERY,
            max_bytes=budget,
            progress=progress,
        )
    except KeyboardInterrupt:
        if training.path.exists():
            said = f"interrupted; {training.path} holds the training so far, the same command goes on"
            raise KeyboardInterrupt(said) from None
        raise
    return tuned, compare_lenses(model, rows[len(rows) - held :][:_MOST], tuned, max_bytes=budget, progress=progress)


def _write(found: Lens, comparison: LensComparison | None, folder: Path) -> list[str]:
    """Write the tables and the figures; returns the names of all files that are there."""
    found.to_dataframe().to_csv(folder / "lens.csv", index=False)
    save_figure(lens_figure(found), folder / "lens.png")
    save_figure(lens_curves_figure(found), folder / "curves.png")
    if comparison is not None:
        comparison.save(folder / "comparison.json")
        save_figure(lens_comparison_figure(comparison), folder / "comparison.png")
    return [name for name in FILES if (folder / name).is_file()]


def _as_json(found: Lens, comparison: LensComparison | None, files: dict[str, str]) -> dict[str, Any]:
    """The last token's rows, the top token of every cell, and the files that hold the rest."""
    columns, last = found.columns(), found.columns()[-1]
    rows = []
    for row, name in enumerate(found.rows):
        pairs = zip(found.top_ids[row, 0, last].tolist(), found.top_probabilities[row, 0, last].tolist(), strict=True)
        numbers = {key: getattr(found, key)[row, 0, last].item() for key in ("rank", "probability", "entropy", "divergence")}
        tops = [found.word(int(found.top_ids[row, 0, column, 0])) for column in columns]
        best = [{"token": found.word(token), "probability": probability} for token, probability in pairs]
        rows.append({"row": name, "kind": found.kinds[row], **numbers, "top": best, "top_token_by_position": tops})
    return {
        "model": found.model,
        "lens": "tuned" if found.tuned else "logit",
        "tokens": [found.word(int(found.ids[0, column])) for column in columns],
        "target": found.word(int(found.targets[0, last])),
        "prediction_depth": [int(found.depths[0, column]) for column in columns],
        "rows": rows,
        "comparison": None if comparison is None else comparison.to_dataframe().to_dict("records"),
        "files": files,
    }


def _report(found: Lens, comparison: LensComparison | None) -> list[str]:
    columns, last = found.columns(), found.columns()[-1]
    goal = f"the answer {_shown(found, found.targets[0, last])}" if found.answered else "the model's own top token"
    kind = "Tuned lens" if found.tuned else "Logit lens"
    parts = [f"{kind} of {one_line(found.model)}: the top token of each layer at each token, layers upwards"]
    parts.append(_grid(found, columns))
    parts.append(f"At the last token, {_shown(found, found.ids[0, last])} (target: {goal})\n{_last_rows(found, last)}")
    depth = int(found.depths[0, last])
    settled = f"from the input of layer {depth} on" if depth else "from the embedding on"
    if depth == sum(kind == "residual" for kind in found.kinds) - 1:
        settled = "only after the last layer"
    if "nodes" in found.kinds:
        parts.append(
            "Rows of nodes: what they add to the logits by themselves (the final norm's scale as in the run, no biases)."
        )
    parts.append(
        f"Prediction depth: {depth} ({settled} the top token is the model's own; resid rows count)\n"
        "rank: 0 = the top token; entropy and KL(final ‖ lens) in nats"
    )
    if comparison is not None:
        parts.append(_compared(comparison))
    return parts


def _steps(found: Lens, training: Training, model: str) -> list[tuple[str, str]]:
    named = "" if model == "mini" else f" --model {one_line(model)}"
    steps = [
        (f"circuits lens{named} --sublayers --nodes m{len(_layers(found)) - 1}", "also between sublayers, and what nodes write")
    ]
    if training.path is not None:
        steps.append(
            (f"circuits lens PROMPT{named} --tuned {one_line(training.path)}", "another prompt through this tuned lens")
        )
    elif training.tuned is None:
        steps.append((f"circuits lens{named} --train-tuned tuned.safetensors --text BOOK", "train a tuned lens on a text"))
    return steps


def _layers(found: Lens) -> list[str]:
    return [name for name, kind in zip(found.rows, found.kinds, strict=True) if kind == "residual"][:-1]


def _shown(found: Lens, token: Any) -> str:
    return printable(found.word(int(token)).replace(" ", "·").replace("\n", "↵")) or "∅"


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _grid(found: Lens, columns: list[int]) -> str:
    """Rows upwards and as many of the last tokens as fit the terminal."""
    room = min(max(shutil.get_terminal_size((_LONGEST, 24)).columns, 40), 200) - 2
    room -= max(len(_cut(name, 24)) for name in (*found.rows, "read at"))
    shown: list[int] = []
    for column in reversed(columns):
        words = [found.ids[0, column], *found.top_ids[:, 0, column, 0]]
        room -= 3 + max(len(_cut(_shown(found, word), _CELL)) for word in words)
        if shown and room < 0:
            break
        shown.insert(0, column)
    header = ("read at", *(_cut(_shown(found, found.ids[0, column]), _CELL) for column in shown))
    rows = [
        (_cut(found.rows[row], 24), *(_cut(_shown(found, found.top_ids[row, 0, column, 0]), _CELL) for column in shown))
        for row in reversed(range(len(found.rows)))
    ]
    note = "" if len(shown) == len(columns) else f"\n  (the last {len(shown)} of {len(columns)} tokens)"
    return table(header, rows) + note


def _last_rows(found: Lens, last: int) -> str:
    rows = []
    for row, name in reversed(list(enumerate(found.rows))):
        pairs = zip(found.top_ids[row, 0, last].tolist(), found.top_probabilities[row, 0, last].tolist(), strict=True)
        best = " ".join(f"{_cut(_shown(found, token), _CELL)} {probability:.0%}" for token, probability in pairs)
        at = (row, 0, last)
        numbers = (
            f"{float(found.probability[at]):.2%}",
            f"{float(found.entropy[at]):.2f}",
            f"{float(found.divergence[at]):.2f}",
        )
        rows.append((_cut(name, 24), f"{int(found.rank[at]):,}", *numbers, best))
    header = ("read at", "rank", "p", "entropy", "KL", "top tokens")
    widest = max(len(row[5]) for row in rows)
    return table(header, [(*row[:5], row[5].ljust(widest)) for row in rows])


def _compared(comparison: LensComparison) -> str:
    rows = []
    for row in comparison.to_dataframe().to_dict("records"):
        both = (f"{row[f'{name}_bits']:.3f} ± {row[f'{name}_error']:.3f}" for name in ("logit", "tuned", "gain"))
        rows.append((f"resid{row['layer']}", *both))
    prompts = comparison.logit.shape[1]
    heading = f"KL(final ‖ lens) in bits a token on {prompts} held-out prompts ({comparison.tokens:,} tokens), ± standard error"
    return f"{heading}\n{table(('read at', 'logit lens', 'tuned lens', 'gain'), rows)}"
