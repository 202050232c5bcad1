"""Run the notebooks and store what they show: python notebooks/refresh.py [NAME ...]

The tests hold the stored outputs against a run of their own, text for text and number for number to two digits.
"""

import sys
import tempfile
from pathlib import Path

import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

HERE = Path(__file__).parent


def executed(path: Path, folder: Path, *, manager: type[AsyncKernelManager] = AsyncKernelManager) -> nbformat.NotebookNode:
    """The notebook at `path`, run from top to bottom with `folder` as its working directory, by a kernel that `manager` starts.

    What says how long a cell took, or on which machine, is left out; raises nbclient's CellExecutionError where a cell fails.
    """
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(folder)}}
    options = {"timeout": 3600, "kernel_name": "python3", "record_timing": False, "kernel_manager_class": manager}
    NotebookClient(notebook, resources=resources, **options).execute()
    notebook.metadata.pop("language_info", None)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            # tqdm's complaint that it has no widgets tells of this machine, not of the notebook.
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return notebook


def main(names: list[str]) -> None:
    """Refresh the notebooks of these names, or all."""
    for path in sorted(HERE.glob("*.ipynb")):
        if not names or path.stem in names:
            with tempfile.TemporaryDirectory() as folder:
                nbformat.write(executed(path, Path(folder)), path)
            print(path.stem)


if __name__ == "__main__":
    main(sys.argv[1:])
