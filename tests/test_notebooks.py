"""The notebooks run from top to bottom, and show what they are stored with."""

import math
import re
from pathlib import Path

import nbformat
import pytest

from notebooks.refresh import executed
from tests.nursery import ForkedKernelManager

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PICTURES = {
    "causal_tracing": 4,
    "circuit_discovery": 5,
    "concepts": 3,
    "induction_heads": 4,
    "logit_lens": 5,
    "mlp_memories": 5,
    "neurons": 4,
    "one_layer_model": 4,
    "path_patching": 6,
    "phase_change": 2,
    "probing": 3,
    "shortcut_found_and_healed": 4,
}
"""The notebooks, and how many pictures each shows at least."""
VARIES = "varies"
"""Tag of a cell whose numbers differ from machine to machine, because a model is trained in it or before it: only the words
of what it shows are compared."""
_NUMBER = re.compile(r"[-+−]?(?:\d[\d,]*)?\.?\d+(?:e[-+]?\d+)?")


def test_every_notebook_is_listed() -> None:
    assert [path.stem for path in NOTEBOOKS] == sorted(PICTURES)


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def said(cell: nbformat.NotebookNode) -> str:
    """The text that a cell shows, its streams and its values."""
    parts = [output.get("text") or output.get("data", {}).get("text/plain", "") for output in cell.outputs]
    return "\n".join("".join(part) for part in parts)


def pictures(cell: nbformat.NotebookNode) -> int:
    return sum("image/png" in output.get("data", {}) for output in cell.outputs)


def words(text: str) -> str:
    """A text without its numbers, and without the spaces that line them up."""
    return " ".join(_NUMBER.sub("#", text).split())


def numbers(text: str) -> list[float]:
    return [float(number.replace(",", "").replace("−", "-")) for number in _NUMBER.findall(text)]


def differences(shown: str, stored: str, *, varies: bool) -> list[str]:
    """What one text says otherwise than the other: words, or numbers by more than their second digit."""
    if words(shown) != words(stored):
        return [f"shows {words(shown)[:300]!r}, stored is {words(stored)[:300]!r}"]
    pairs = [] if varies else zip(numbers(shown), numbers(stored), strict=True)
    return [f"shows {one}, stored is {two}" for one, two in pairs if not math.isclose(one, two, rel_tol=0.01, abs_tol=0.011)]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_shows_what_it_is_stored_with(path: Path, tmp_path: Path) -> None:
    found = executed(path, tmp_path, manager=ForkedKernelManager)
    stored, run = (code_cells(notebook) for notebook in (nbformat.read(path, as_version=4), found))
    for place, (old, new) in enumerate(zip(stored, run, strict=True)):
        varies = VARIES in old.metadata.get("tags", [])
        assert not differences(said(new), said(old), varies=varies), f"cell {place}: refresh with notebooks/refresh.py"
        assert pictures(new) == pictures(old), f"cell {place}: refresh with notebooks/refresh.py"
    assert sum(map(pictures, run)) >= PICTURES[path.stem], "pictures are shown"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_with_its_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), "run from top to bottom"
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    assert sum(map(pictures, cells)) >= PICTURES[path.stem]
    text = path.read_text(encoding="utf-8")
    assert str(ROOT) not in text and str(Path.home()) not in text, "no path of one machine"


@pytest.mark.parametrize(
    ("shown", "stored"),
    [("loss 1.30", "loss 1.20"), ("a head", "a token"), ("1 2", "1"), ("12,800 tokens", "12,000 tokens"), ("-1.5", "1.5")],
)
def test_another_text_or_number_is_seen(shown: str, stored: str) -> None:
    assert differences(shown, stored, varies=False)


@pytest.mark.parametrize(("shown", "stored"), [("loss 1.302", "loss 1.298"), ("a  0.50", "a 0.501"), ("1e-05", "2e-05")])
def test_the_same_to_two_digits_is_fresh(shown: str, stored: str) -> None:
    assert not differences(shown, stored, varies=False)
