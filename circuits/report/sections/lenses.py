"""What a lens read as a section: the top token of every layer at every position."""

from circuits.lenses import Lens
from circuits.report.blocks import AnyBlock, Grid, Heatmap, Paragraphs, Section

_MOST_PROMPTS = 6
_MOST_COLUMNS = 48
"""Tokens of a prompt that are shown: the last ones."""


def lens_section(lens: Lens, *, title: str | None = None) -> Section:
    """A table a prompt: rows from the last layer down, a column a token; words are the top tokens, coloured by their
    probability; and each row's numbers, means over all tokens."""
    blocks: list[AnyBlock] = [Paragraphs([lens.summary])]
    for prompt in range(min(_MOST_PROMPTS, len(lens.ids))):
        columns = lens.columns(prompt)[-_MOST_COLUMNS:]
        rows = list(range(len(lens.rows)))[::-1]
        words = [[lens.word(int(lens.top_ids[row, prompt, column, 0])) for column in columns] for row in rows]
        values = [[float(lens.top_probabilities[row, prompt, column, 0]) for column in columns] for row in rows]
        tokens = [lens.word(int(lens.ids[prompt, column])) for column in columns]
        caption = f"Prompt {prompt + 1}: the top token of each row, coloured by its probability"
        blocks.append(Heatmap([lens.rows[row] for row in rows], tokens, values, caption, "row", "token", cells=words))
    if len(lens.ids) > _MOST_PROMPTS:
        blocks.append(Paragraphs([f"{len(lens.ids) - _MOST_PROMPTS} more prompts are in the file."], tone="note"))
    names = ("entropy", "cross_entropy", "divergence", "probability")
    means = {name: lens.mean(name).tolist() for name in names}
    numbers = [(row, lens.kinds[place], *(means[name][place] for name in names)) for place, row in enumerate(lens.rows)]
    header = ("row", "kind", *(name.replace("_", " ") for name in names))
    blocks.append(Grid(header, numbers, "Means over all tokens (entropy, cross-entropy and divergence in nats)", folded=True))
    return Section(title or ("Tuned lens" if lens.tuned else "Logit lens"), blocks)
