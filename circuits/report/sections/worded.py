"""Word attributions as a section: texts with coloured words, and what taking the words out does."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from circuits.report.blocks import AnyBlock, Chart, Grid, Paragraphs, Section
from circuits.report.sections.general import table_of
from circuits.uses import Faithfulness, WordAttributions

_TEXTS, _TOP = 40, 12
"""Texts that are shown, and words of each class."""


@dataclasses.dataclass(frozen=True)
class WeighedWords:
    """Texts word by word, with a number a word. A row is a mapping: `name`, `words`, `numbers`."""

    KIND: ClassVar[str] = "words"
    caption: str
    legend: str
    rows: Sequence[Mapping[str, Any]]


def word_attributions_section(found: WordAttributions, *, title: str = "Which words a classifier goes by") -> Section:
    """The texts with their words coloured, what taking words out does, and the words that speak most for each class."""
    rows = []
    for text, (words, numbers) in enumerate(zip(found.words, found.numbers, strict=True)):
        if text < _TEXTS:
            rows.append({"name": named_text(found, text), "words": list(words), "numbers": list(numbers)})
    legend = "Blue speaks for the class, vermilion against it; the strongest word of each text in full colour."
    if not found.signed:
        legend = "The more the last token attends to a word, the bluer it is; the strongest of each text in full colour."
    shown = f" ({_TEXTS} of {len(found.texts)})" if len(found.texts) > _TEXTS else ""
    blocks: list[AnyBlock] = [Paragraphs([found.summary]), WeighedWords(f"{len(found.texts)} texts{shown}", legend, rows)]
    if found.faithfulness is not None:
        blocks.append(removal_chart(found.faithfulness))
    top = found.top_words()
    listed = [tuple(row) for _, part in top.groupby("class") for row in part.head(_TOP).itertuples(index=False)]
    if listed:
        header = ("class", "word", "mean number", "times")
        blocks.append(Grid(header, listed, "Words that stand in two texts or more and speak most for each class", folded=True))
    return Section(title, [*blocks, table_of(found)])


def named_text(found: WordAttributions, text: int) -> str:
    """The class that is explained, how sure the classifier is of it, and the text's own where it is another one."""
    own = found.labels[text] if found.labels else found.explained[text]
    margin = f"{found.classes[found.explained[text]]}, margin {float(found.margins[text]):+.2f}"
    return margin if own == found.explained[text] else f"{margin} (the text is {found.classes[own]})"


def removal_chart(tested: Faithfulness) -> Chart:
    """How far the class's probability falls without the words that count most, and without random ones."""
    series: list[dict[str, Any]] = []
    x = [100 * share for share in tested.shares]
    columns = (
        ("without the words that count most", tested.without, "0"),
        ("without random words", tested.without_random, "faint"),
        ("with these words alone", tested.alone, "2"),
        ("with random words alone", tested.alone_random, "1"),
    )
    for name, values, colour in columns:
        series.append(
            {"name": name, "look": "line", "x": x, "y": values.nanmean(dim=1).nan_to_num().tolist(), "colour": colour}
        )
    whole = float(tested.whole.mean())
    caption = f"Probability of the class (dashed: of the whole texts, {whole:.2f})"
    return Chart(caption, series, "words, %", "probability", lines_at=(whole,))
