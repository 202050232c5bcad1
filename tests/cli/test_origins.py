"""What a command saves tells its command line; beside this, every command that the tests run is asked for it (`conftest`)."""

import inspect
from pathlib import Path

import pytest

import circuits
from circuits.cli import app
from circuits.errors import FileFormatError
from circuits.files.origins import made_by
from circuits.graph import Circuit
from circuits.report import read_saved, run_page
from circuits.report.kinds import load_saved, origin_in
from tests.files import examples
from tests.files.test_results import EXAMPLES, suffix
from tests.report.samples import data_of

SAVE_NOTHING = {"compare", "export", "heads", "info", "models", "report"}
"""Commands that read results, or write for other programs alone; with tables and pictures of their own, and no results."""
LINE = "circuits any --seed 1"


def test_every_command_that_saves_results_has_a_setting_in_which_they_tell_their_command_line() -> None:
    commands = {one.name or one.callback.__name__: one.callback for one in app.registered_commands if one.callback}
    inside = {name: inspect.unwrap(one) for name, one in commands.items()}
    with_setting = {name for name, one in inside.items() if "setting" in one.__annotations__}
    assert set(commands) - with_setting <= SAVE_NOTHING | {"probe"} and with_setting & SAVE_NOTHING <= {"heads"}


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_file_tells_its_command_line_and_is_the_same_result(tmp_path: Path, name: str) -> None:
    result = EXAMPLES[name]()
    told, silent = tmp_path / f"told{suffix(result)}", tmp_path / f"silent{suffix(result)}"
    result.save(silent)
    with made_by(LINE):
        result.save(told)
    assert origin_in(told) == LINE
    assert origin_in(silent) == "" and b"circuits any" not in silent.read_bytes()
    again, plain = (load_saved(file)[1] for file in (told, silent))
    if isinstance(again, Circuit):
        again = Circuit(again.graph, again.edges, again.nodes, metadata=result.metadata, **about(again))
    again.save(tmp_path / f"again{suffix(result)}")
    assert (tmp_path / f"again{suffix(result)}").read_bytes() == silent.read_bytes() and type(plain) is type(again)
    page = data_of(run_page(read_saved(told)).html())
    assert ["command line", LINE] in page["sections"][-1]["blocks"][0]["rows"]


def about(circuit: Circuit) -> dict:
    return {"positions": circuit.positions, "evidence": circuit.evidence, "roles": circuit.roles}


def test_a_command_line_that_is_no_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "verdict.json"
    with made_by(LINE):
        examples.verdict().save(file)
    file.write_text(file.read_text().replace(f'"{LINE}"', "7"))
    with pytest.raises(FileFormatError, match="command is no text"):
        circuits.search.Verdict.load(file)
