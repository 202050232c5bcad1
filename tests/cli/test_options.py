"""What was said on a command line, said again; and saved results that another command opens."""

from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

import circuits
from circuits.cli.errors import Context
from circuits.cli.options import ModelName, PromptOption, Seed, repeated
from circuits.cli.saved import OPENED_BY
from circuits.files.results import Result
from tests.cli.conftest import Command
from tests.cli.test_dispatch import NAMES
from tests.cli.test_errors import check_one_line
from tests.files import examples

ONE = typer.Typer()


@ONE.command()
def one(
    context: Context,
    prompt: Annotated[str | None, typer.Argument()] = None,
    prompt_option: PromptOption = None,
    nodes: Annotated[list[str] | None, typer.Option("--node")] = None,
    sides: Annotated[bool | None, typer.Option("--sides/--no-sides")] = None,
    severed: Annotated[bool, typer.Option("--severed")] = False,
    seed: Seed = 0,
    model: ModelName = "mini",
) -> None:
    """Say again what was said."""
    for words in (repeated(context), repeated(context, "seed", "prompt"), repeated(context, only=("seed",))):
        typer.echo(" | ".join(words))


@pytest.mark.parametrize(
    ("said", "again"),
    [
        ([], ["", "", ""]),
        (["Hi there", "--seed", "0", "-m", "gpt2"], ["Hi there | --seed | 0", "", "--seed | 0"]),
        (["--no-sides", "train", "--severed"], ["--prompt | train | --no-sides | --severed", "--no-sides | --severed", ""]),
        (["--node", "a0.h1", "--node", "m3"], ["--node | a0.h1 | --node | m3", "--node | a0.h1 | --node | m3", ""]),
        (["--prompt", "labels", "--sides"], ["--prompt | labels | --sides", "--prompt | labels | --sides", ""]),
        (["--prompt", "Hi", "--sides"], ["Hi | --sides", "Hi | --sides", ""]),
    ],
)
def test_what_was_said_is_said_again_but_for_the_model(said: list[str], again: list[str]) -> None:
    answer = CliRunner().invoke(ONE, said)
    assert answer.exit_code == 0, answer.output
    assert answer.stdout.split("\n")[:3] == again


def test_every_format_with_a_command_is_one_of_a_result_and_the_command_is_there() -> None:
    formats = {kind.FORMAT for name in vars(examples) for kind in [getattr(examples, name)] if is_result(kind)}
    assert set(OPENED_BY) <= formats | {circuits.Circuit.FORMAT}
    for words in OPENED_BY.values():
        assert words.removesuffix(" --open") in NAMES


def is_result(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, Result) and kind is not Result


def test_a_result_of_another_kind_names_the_command_that_opens_it(command: Command, tmp_path: Path) -> None:
    circuits.Circuit(circuits.Graph(n_layers=1, n_heads=1, n_key_value_heads=1, d_mlp=4), ["input->logits"]).save(
        tmp_path / "circuit.json"
    )
    examples.terms().save(tmp_path / "terms.json")
    for name in ("lens", "trace", "tables", "neuron", "logits", "patch", "ablate", "attention"):
        said = f"circuits tables terms --open {tmp_path / 'terms.json'} shows it"
        check_one_line(command(name, "--open", tmp_path / "terms.json"), "terms.json", said)
    check_one_line(command("tables", "terms", "--open", tmp_path / "circuit.json"), f"circuits info {tmp_path}")
    (tmp_path / "terms.json").write_text('{"format": "circuits-terms", "version": 1}')
    damaged = command("tables", "terms", "--open", tmp_path / "terms.json")
    check_one_line(damaged, "terms.json")
    assert "shows it" not in damaged.err
