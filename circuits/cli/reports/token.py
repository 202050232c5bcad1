"""What weight tables say of one token."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from circuits.cli.progress import ProgressBars
from circuits.cli.questions.tables import TablesQuestion
from circuits.cli.report import Part, Report, Table
from circuits.cli.text import one_line
from circuits.heads import bigram_table, measured_scale, ov_table, qk_table
from circuits.models import Model

_COLUMNS = {
    "attends_to": "Whom it attends to (attention score above the mean token's)",
    "attended_from": "Who attends to it (attention score above the mean token's)",
    "raises": "What it raises when a head attends to it (logits above the mean token's)",
}


def of_token(model: Model, token: str, options: TablesQuestion, progress: ProgressBars) -> dict[str, Any]:
    """What follows the token by the direct path, and its strongest entries in each head's tables."""
    place, size = model.single_token(token), measured_scale(model)
    direct = bigram_table(model, through_mlp0=options.through_mlp0).top(place, options.top)
    found: dict[str, Any] = {"model": model.name, "token": token, "next": _entries(model, direct), "heads": {}}
    heads = options.heads(model)
    for done, name in enumerate(heads):
        progress("reading heads", done, len(heads))
        found["heads"][name] = _of_head(model, name, place, size, options)
    progress("reading heads", len(heads), len(heads))
    return found


def token_report(found: Mapping[str, Any], top: int, files: Mapping[str, str]) -> Report:
    """The strongest entries of each table."""
    following = [(repr(row["token"]), f"{math.exp(row['value']):.1%}") for row in found["next"]]
    parts: list[Part] = [Table(("token", "probability"), following, "Next, by the direct path alone")]
    most = max(3, min(top, 5))
    for column, title in _COLUMNS.items():
        rows = [(name, _list(row[column], most)) for name, row in found["heads"].items()]
        parts.append(Table(("head", "tokens"), rows, title))
    heading = f"{found['token']!r} in the weight tables of {one_line(found['model'])}"
    return Report(heading=heading, parts=parts, data=found, files=files)


def _of_head(model: Model, name: str, token: int, scale: float, options: TablesQuestion) -> dict[str, list[dict[str, Any]]]:
    common: dict[str, Any] = {"through_mlp0": options.through_mlp0}
    attends = qk_table(model, name, offset=options.offset, **common).top(token, options.top)
    attended = qk_table(model, name, offset=options.offset, rows="source", **common).top(token, options.top)
    raised = ov_table(model, name, scale=scale, **common).top(token, options.top)
    return {key: _entries(model, found) for key, found in zip(_COLUMNS, (attends, attended, raised), strict=True)}


def _entries(model: Model, found: Sequence[tuple[int, float]]) -> list[dict[str, Any]]:
    words = model.to_token_strings([token for token, _ in found])
    return [{"token": word, "value": value} for word, (_, value) in zip(words, found, strict=True)]


def _list(entries: Sequence[Mapping[str, Any]], most: int) -> str:
    return ", ".join(f"{entry['token']!r} {entry['value']:.1f}" for entry in entries[:most])
