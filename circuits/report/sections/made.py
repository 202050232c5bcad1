"""How something was made, as a section: enough to make it again."""

import importlib.metadata
import platform
from collections.abc import Mapping, Sequence

from circuits.report.blocks import Facts, Grid, Section

_NAMES = {
    "model": "model",
    "weights_sha256": "fingerprint of its weights (SHA-256)",
    "task": "task",
    "source": "data",
    "method": "method",
    "search": "search",
    "steps": "steps",
    "metric": "metric",
    "outside": "edges outside carry",
    "seed": "seed",
    "prompts": "prompts searched on",
    "prepend_bos": "prompts open with BOS",
    "created_by": "written by",
    "command": "command line",
}
"""What a circuit's metadata tells of how it was made, and what that is called."""
_VERSIONS = ("transformer-circuits", "torch", "transformers", "transformer-lens", "numpy")


def made_section(
    metadata: Mapping[str, object],
    *,
    commands: Sequence[tuple[str, str]] = (),
    files: Mapping[str, str] | None = None,
    title: str = "How this was made",
) -> Section:
    """Model, fingerprint, data, seed, versions and files.

    Args:
        metadata: what the result says of itself.
        commands: what each command line did, and the line.
        files: the files that the page was made of, and what is in each.
        title: the section's heading.
    """
    rows = [(name, _said(metadata[key])) for key, name in _NAMES.items() if metadata.get(key) is not None]
    rows += list(commands)
    rows.append(("versions", f"Python {platform.python_version()} with {', '.join(_versions())}"))
    copied = "\n".join(f"{name}: {value}" for name, value in rows)
    listed = [(name, what) for name, what in (files or {}).items()]
    blocks = [Facts(rows, copied), *([Grid(("file", "what is in it"), listed, "Files", folded=True)] if listed else [])]
    return Section(title, blocks)


def _said(value: object) -> str:
    return value if isinstance(value, str) else "yes" if value is True else "no" if value is False else str(value)


def _versions() -> list[str]:
    found = []
    for name in _VERSIONS:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
