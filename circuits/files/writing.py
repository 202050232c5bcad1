"""Files that appear whole, or not at all."""

import secrets
from pathlib import Path

from circuits.errors import FileFormatError


def write_whole(path: Path, content: bytes) -> None:
    """Write to a new file beside the target, then rename it; raises FileFormatError where that fails."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        try:
            with temporary.open("xb") as file:
                file.write(content)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise FileFormatError(f"{path}: cannot be written: {error.strerror}") from None
