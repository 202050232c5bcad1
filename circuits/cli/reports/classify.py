"""A classifier's answers and its scores, as they are written and printed."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from circuits.cli.output import save_figure
from circuits.cli.report import Report, Table, records
from circuits.cli.text import filled, one_line
from circuits.uses import Classifier, ClassifierScores

_NOTE = (
    "right: the share of texts, with its 95 % interval over texts (Wilson). majority: the class that is most frequent in the "
    "training texts. words: a logistic regression on counts of words and of pairs of neighbours, trained on the same texts."
)


def write(found: ClassifierScores, folder: Path) -> None:
    """Write the table and the picture."""
    found.to_dataframe().to_csv(folder / "scores.csv", index=False)
    save_figure(found.plot(), folder / "scores.png")


def scores_report(
    found: ClassifierScores, files: Mapping[str, str], steps: Sequence[tuple[str, str]] = (), *, data: str = ""
) -> Report:
    """Every set of texts."""
    table = found.to_dataframe()
    rows = [
        (
            one_line(row["split"]),
            f"{row['texts']:,}",
            f"{row['accuracy']:.1%} [{row['low']:.1%}, {row['high']:.1%}]",
            f"{row['majority']:.1%}",
            f"{row['bag_of_words']:.1%}",
            f"{row['loss']:.3f}",
        )
        for row in table.to_dict("records")
    ]
    of = f" of {one_line(data)}" if data else ""
    heading = f"a classifier on {one_line(found.model)}: {', '.join(map(one_line, found.classes))}\n{found.trained}{of}"
    said = {"model": found.model, "classes": list(found.classes), "trained": found.trained, "splits": records(table)}
    header = ("texts of", "count", "right", "majority", "words", "loss")
    return Report(heading=heading, parts=[Table(header, rows), filled(_NOTE)], data=said, files=files, next=steps)


def classes_report(found: Classifier, texts: Sequence[str], logits: Tensor) -> Report:
    """The class of each text, and how sure the classifier is."""
    chances = logits.double().softmax(dim=1).cpu()
    likeliest = chances.argmax(dim=1).tolist()
    rows = [
        (one_line(text), one_line(found.classes[place]), f"{float(chances[row, place]):.1%}")
        for row, (text, place) in enumerate(zip(texts, likeliest, strict=True))
    ]
    said = [
        {"text": text, "class": found.classes[place], "chances": dict(zip(found.classes, chances[row].tolist(), strict=True))}
        for row, (text, place) in enumerate(zip(texts, likeliest, strict=True))
    ]
    return Report(heading=found.summary, parts=[Table(("text", "class", "chance"), rows)], data={"texts": said})
