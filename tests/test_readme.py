"""The Python in README and docs runs, and prints what stands there; commands, paths and links exist."""

import re
from pathlib import Path

import pytest

from tests.nursery import run_code

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
_NUMBER = re.compile(r"\d+\.\d+")


def block(page: str, language: str) -> str:
    """A page's only block in that language."""
    found = re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(found) == 1
    return found[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "code", "text", "file"),
    [("README.md", "python", "text", "induction.json"), ("docs/howto.md", "py", "console", "found.mib.json")],
)
def test_the_python_prints_what_the_page_says(page: str, code: str, text: str, file: str, tmp_path: Path) -> None:
    said, got = block(page, text), run_code(block(page, code), tmp_path)
    assert _NUMBER.sub("#", got) == _NUMBER.sub("#", said)
    numbers = [[float(number) for number in _NUMBER.findall(text)] for text in (got, said)]
    assert numbers[0] == pytest.approx(numbers[1], abs=0.02), "measured numbers, up to rounding on other machines"
    assert (tmp_path / file).is_file()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_and_path_of_a_page_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (page.parent / link).exists(), link
    for path in re.findall(r"`((?:circuits|docs|experiments|notebooks|tests)/[\w./]+\w)`", text):
        if "NAME" not in path:
            assert (ROOT / path).exists(), path


def test_every_command_and_path_in_the_readme_exists() -> None:
    from typer.testing import CliRunner

    from circuits.cli import app

    named = set(re.findall(r"`circuits (\w+)", README)) | set(re.findall(r"/circuits (\w+)", README)) - {"COMMAND"}
    shown = [command for command in app.registered_commands if command.callback and not command.hidden]
    assert {(command.name or command.callback.__name__).split()[0] for command in shown} == named - {"COMMAND"}
    for name in named - {"COMMAND"}:
        assert CliRunner().invoke(app, [name, "--help"]).exit_code == 0
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"`?make (\w+)`", README)):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
