"""What a lens reads, as it is written and printed."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import circuits
from circuits.cli.output import save_figure
from circuits.cli.report import Part, Report, Table
from circuits.cli.settings import Setting
from circuits.cli.text import one_line, printable
from circuits.lenses import Lens, LensComparison

_CELL, _LONGEST = 10, 100
"""Letters of a token in the table, and of a line."""


def write(found: Lens, folder: Path) -> None:
    """Write the table and the figures."""
    found.to_dataframe().to_csv(folder / "lens.csv", index=False)
    save_figure(found.plot(), folder / "lens.png")
    save_figure(circuits.plots.lens_curves_figure(found), folder / "curves.png")


def lens_report(
    found: Lens,
    files: Mapping[str, str],
    comparison: LensComparison | None = None,
    *,
    steps: Sequence[tuple[str, str]] = (),
) -> Report:
    """The top token of each layer at each token, then the last token's rows, and both lenses compared where they were."""
    columns, last = found.columns(), found.columns()[-1]
    goal = f"the answer {_shown(found, found.targets[0, last])}" if found.answered else "the model's own top token"
    kind = "Tuned lens" if found.tuned else "Logit lens"
    title = f"At the last token, {_shown(found, found.ids[0, last])} (target: {goal})"
    parts: list[Part] = [_grid(found, columns), _last_rows(found, last, title)]
    if "nodes" in found.kinds:
        parts.append(
            "Rows of nodes: what they add to the logits by themselves (the final norm's scale as in the run, no biases)."
        )
    parts += [_depth(found, last), *([] if comparison is None else [_compared(comparison)])]
    heading = f"{kind} of {one_line(found.model)}: the top token of each layer at each token, layers upwards"
    return Report(heading=heading, parts=parts, data=_data(found, comparison), files=files, next=steps)


def _depth(found: Lens, last: int) -> str:
    """From which layer on the top token is the model's own, in words."""
    depth = int(found.depths[0, last])
    settled = f"from the input of layer {depth} on" if depth else "from the embedding on"
    if depth == sum(kind == "residual" for kind in found.kinds) - 1:
        settled = "only after the last layer"
    return (
        f"Prediction depth: {depth} ({settled} the top token is the model's own; resid rows count)\n"
        "rank: 0 = the top token; entropy and KL(final ‖ lens) in nats"
    )


def _data(found: Lens, comparison: LensComparison | None) -> dict[str, Any]:
    """The last token's rows, the top token of every cell."""
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
    }


def next_steps(
    found: Lens, setting: Setting, said: Sequence[str], *, tuned: Path | None = None, trained: Path | None = None
) -> list[tuple[str, str]]:
    """What to try after reading what was `said`, through a `tuned` lens or one that was just `trained`."""
    last = f"m{len(_layers(found)) - 1}"
    words = ["lens", *said, "--sublayers", "--nodes", last]
    steps = [(setting.command(*words), "also between sublayers, and what nodes write")]
    if trained is not None:
        steps.append((setting.command("lens", "PROMPT", "--tuned", str(trained)), "another prompt through this tuned lens"))
    elif tuned is None:
        words = ["lens", "train", "tuned.safetensors", "--text", "BOOK"]
        steps.append((setting.command(*words), "train a tuned lens on a text"))
    return steps


def _layers(found: Lens) -> list[str]:
    return [name for name, kind in zip(found.rows, found.kinds, strict=True) if kind == "residual"][:-1]


def _shown(found: Lens, token: Any) -> str:
    return printable(found.word(int(token)).replace(" ", "·").replace("\n", "↵")) or "∅"


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _grid(found: Lens, columns: list[int]) -> Table:
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
    note = "" if len(shown) == len(columns) else f"  (the last {len(shown)} of {len(columns)} tokens)"
    return Table(header, rows, below=note, indent=2)


def _last_rows(found: Lens, last: int, title: str) -> Table:
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
    return Table(header, [(*row[:5], row[5].ljust(widest)) for row in rows], title)


def _compared(comparison: LensComparison) -> Table:
    rows = []
    for row in comparison.to_dataframe().to_dict("records"):
        both = (f"{row[f'{name}_bits']:.3f} ± {row[f'{name}_error']:.3f}" for name in ("logit", "tuned", "gain"))
        rows.append((f"resid{row['layer']}", *both))
    prompts = comparison.logit.shape[1]
    heading = f"KL(final ‖ lens) in bits a token on {prompts} held-out prompts ({comparison.tokens:,} tokens), ± standard error"
    return Table(("read at", "logit lens", "tuned lens", "gain"), rows, heading)
