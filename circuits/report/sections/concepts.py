"""Concepts and classifiers as sections: what an answer hangs on, and how often a classifier is right."""

from circuits.concepts import ConceptCurve, ConceptTest
from circuits.report.blocks import AnyBlock, Chart, Paragraphs, Section
from circuits.report.sections.general import table_of
from circuits.report.sections.series import level, line, shown
from circuits.uses import ClassifierScores


def concept_section(found: ConceptTest, *, title: str = "Concept") -> Section:
    """The slope at each place with its interval, filled in words by where it counts; then what moving the direction does."""
    at = [float(place) for place in range(len(found.sites))]
    slopes = {"name": "a step along the concept", "look": "points", "colour": "0", "x": at, "y": found.slope.tolist()}
    slopes |= {"low": found.low.tolist(), "high": found.high.tolist()}
    ticks = [(place, site + (" *" if site in found.significant else "")) for place, site in zip(at, found.sites, strict=True)]
    caption = f"By how much {found.target} changes with a step along {found.concept} (* it counts); 95 % intervals over prompts"
    blocks: list[AnyBlock] = [Paragraphs([found.summary])]
    blocks.append(Chart(caption, [slopes], "", "change of the number", lines_at=(0.0,), x_ticks=ticks))
    blocks += [_curve(curve) for curve in found.curves]
    word, standing = ("counts", "good") if found.significant else ("not surely used", "bad")
    return Section(title, [*blocks, table_of(found)], word, standing)  # type: ignore[arg-type]


def classifier_scores_section(found: ClassifierScores, *, title: str = "Scores of a classifier") -> Section:
    """The share of texts told right in each set with its interval, beside the majority class and a bag of words."""
    at = [float(place) for place in range(len(found.splits))]
    right = {"name": "classifier", "look": "points", "colour": "0", "x": at, "y": found.accuracy.tolist()}
    right |= {"low": found.low.tolist(), "high": found.high.tolist()}
    words = line("bag of words", at, found.bag_of_words.tolist(), colour="1", look="points")
    majority = line("majority class", at, found.majority.tolist(), colour="faint", look="points")
    ticks = [(place, f"{name} ({int(count):,})") for place, name, count in zip(at, found.splits, found.texts, strict=True)]
    caption = "Texts told right, with 95 % intervals over texts"
    chart = Chart(caption, [right, words, majority], "", "share", lines_at=(1 / len(found.classes),), x_ticks=ticks)
    return Section(title, [Paragraphs([found.summary]), chart, table_of(found)])


def _curve(curve: ConceptCurve) -> Chart:
    own = line("concept", curve.steps, curve.values, curve.errors, colour="0")
    random = line("random directions", curve.steps, curve.random, colour="faint")
    series = [own, random, level("concept erased", curve.steps, curve.erased, colour="1")]
    caption = f"The number when the direction at {curve.site} is moved, and when it is erased"
    return Chart(caption, shown(*series), "steps along the direction", "the number")
