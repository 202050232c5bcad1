"""The notebooks run from top to bottom, and are stored without outputs."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests import HANGS

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PICTURES = {
    "causal_tracing": 4,
    "circuit_discovery": 5,
    "induction_heads": 4,
    "logit_lens": 5,
    "mlp_memories": 5,
    "one_layer_model": 4,
    "path_patching": 6,
    "phase_change": 2,
}
"""The notebooks, and how many pictures each shows at least."""


def test_every_notebook_is_listed() -> None:
    assert [path.stem for path in NOTEBOOKS] == sorted(PICTURES)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=HANGS, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    noise = [output.text for output in outputs if output.get("name") == "stderr" and "IProgress" not in output.text]
    assert not noise, "nothing but results is printed (tqdm asks for widgets that are not needed)"
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= PICTURES[path.stem], "pictures are shown"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_clean(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None
