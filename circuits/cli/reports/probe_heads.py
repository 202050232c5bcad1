"""Patterns of heads and what is lost without them, as they are written and printed."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from circuits.cli.output import save_figure
from circuits.cli.report import Part, Report, Table, records
from circuits.cli.text import filled, one_line
from circuits.probes import HeadPatterns, HeadPruning
from circuits.statistics import Effect

_MOST = 4
"""Heads of a class that are named."""


def write(found: HeadPatterns | None, lost: HeadPruning | None, folder: Path) -> None:
    """Write tables and pictures."""
    for name, result in (("patterns", found), ("pruning", lost)):
        if result is not None:
            result.to_dataframe().to_csv(folder / f"{name}.csv", index=False)
            save_figure(result.plot(), folder / f"{name}.png")


def patterns_table(found: HeadPatterns, where: str) -> Table:
    """The classes, how well made maps of each are told, and the heads that are surest of each."""
    told = found.confusion.double()
    rows = []
    for number, name in enumerate(found.classes):
        heads = found.heads(name)
        shares = {head: _share(found, head, number) for head in heads}
        first = sorted(heads, key=lambda head: -shares[head])[:_MOST]
        named = " ".join(f"{head} {shares[head]:.0%}" for head in first) + (" …" if len(heads) > _MOST else "")
        every = float(found.shares[:, :, number].mean())
        right = float(told[number, number] / told[number].sum().clamp(min=1))
        rows.append((name, f"{right:.0%}", str(len(heads)), f"{every:.1%}", named))
    right = f"{found.accuracy.effect:.1%} [{found.accuracy.low:.1%}, {found.accuracy.high:.1%}]"
    title = f"patterns of {found.pattern.numel()} heads of {one_line(found.model)}, {found.prompts} prompts of {found.tokens} "
    header = ("pattern", "made maps told right", "heads", "of all maps", "surest heads, with the share of their maps")
    return Table(header, rows, title=f"{title}tokens{where}", below=f"  made maps of held-out prompts told right: {right}")


def _share(found: HeadPatterns, head: str, number: int) -> float:
    layer, place = head.removeprefix("a").split(".h")
    return float(found.shares[int(layer), int(place), number])


def pruning_parts(lost: HeadPruning) -> list[Part]:
    """What is lost without the heads of each class, and how many may go."""
    rows = []
    for one in lost.classes:
        more = "yes" if one.beyond else ""
        rows.append((f"{one.pattern} ({one.kind})", str(one.heads), _effect(one.rise), _effect(one.random), more))
    whole = f"{lost.loss.effect:.3f} [{lost.loss.low:.3f}, {lost.loss.high:.3f}]"
    title = f"rise of the loss, nats a token, without heads (of the whole model: {whole}, {lost.prompts} prompts)"
    below = (
        f"  random: as many heads of other classes (of all for a large one), Student's interval over {lost.draws} draws;\n"
        "  each row by itself: of many rows some are beyond by chance"
    )
    header = ("class", "heads", "rise", "random heads", "beyond both intervals")
    parts: list[Part] = [Table(header, rows, title=title, below=below)]
    if lost.free is not None:
        free = lost.free
        said = f"The largest set found that costs at most {free.nats:g} nats where it was chosen ({free.kind}): "
        said += f"{len(free.heads)} of {lost.total} heads, {free.chosen:+.3f} there, {_effect(free.rise)} on other prompts; as "
        parts.append(filled(f"{said}many random heads {_effect(free.random)}."))
    return parts


def heads_report(
    found: HeadPatterns,
    lost: HeadPruning | None,
    where: str,
    files: Mapping[str, str],
    steps: Sequence[tuple[str, str]] = (),
) -> Report:
    """Patterns, and what is lost without heads where that was asked."""
    data = {"model": found.model, "classes": list(found.classes), "accuracy": found.accuracy.as_json()}
    data |= {"prompts": found.prompts, "tokens": found.tokens, "seed": found.seed, "heads": records(found.to_dataframe())}
    data |= {"pruning": None if lost is None else records(lost.to_dataframe())}
    data |= {"free": None if lost is None or lost.free is None else list(lost.free.heads)}
    return Report(
        heading=f"{one_line(found.model)}: where heads look",
        parts=[patterns_table(found, where), *([] if lost is None else pruning_parts(lost))],
        data=data,
        files=files,
        next=steps,
    )


def _effect(effect: Effect) -> str:
    return f"{effect.effect:+.3f} [{effect.low:.3f}, {effect.high:.3f}]"
