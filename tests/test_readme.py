"""The README's Python runs, and prints what the README says it prints."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import HANGS

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
_NUMBER = re.compile(r"\d+\.\d+")


def block(language: str) -> str:
    """The README's only block in that language."""
    found = re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)
    assert len(found) == 1
    return found[0]


@pytest.mark.slow
@pytest.mark.parametrize(("code", "text", "file"), [("python", "text", "induction.json"), ("py", "console", "found.mib.json")])
def test_the_python_prints_what_the_readme_says(code: str, text: str, file: str, tmp_path: Path) -> None:
    line = [sys.executable, "-c", block(code)]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=HANGS, check=True)
    said, got = block(text), done.stdout
    assert _NUMBER.sub("#", got) == _NUMBER.sub("#", said)
    numbers = [[float(number) for number in _NUMBER.findall(text)] for text in (got, said)]
    assert numbers[0] == pytest.approx(numbers[1], abs=0.02), "measured numbers, up to rounding on other machines"
    assert (tmp_path / file).is_file()


def test_every_command_and_path_in_the_readme_exists() -> None:
    from typer.testing import CliRunner

    from circuits.cli import app

    named = set(re.findall(r"`circuits (\w+)", README)) | set(re.findall(r"/circuits (\w+)", README)) - {"COMMAND"}
    shown = [command for command in app.registered_commands if command.callback and not command.hidden]
    assert {(command.name or command.callback.__name__).split()[0] for command in shown} == named - {"COMMAND"}
    for name in named - {"COMMAND"}:
        assert CliRunner().invoke(app, [name, "--help"]).exit_code == 0
    root = Path(__file__).parent.parent
    for path in re.findall(r"`(circuits/\w+|notebooks/\S+?|constraints\.txt)`|\]\((\S+?)\)", README):
        assert (root / (path[0] or path[1])).exists(), path
    makefile = (root / "Makefile").read_text()
    for target in set(re.findall(r"`?make (\w+)`", README)):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
