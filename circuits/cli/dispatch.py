"""From words of a command line to a command: two-word names, old spellings, and errors that end in one line."""

import sys
from collections.abc import Mapping
from typing import Any

import typer
from typer.core import TyperGroup

from circuits.cli.errors import plain_errors, stoppable
from circuits.cli.text import one_line

ORDER = (
    "induction",
    "heads",
    "trace",
    "edit",
    "recall",
    "models",
    "export",
    "info",
    "patch",
    "ablate",
    "study",
    "discover",
    "evaluate",
    "compare",
    "report",
    "lens",
    "logits",
    "neuron",
    "explain",
    "tables",
    "attention",
    "probe",
    "neurons",
    "concept",
    "compose",
    "features",
    "symmetry",
    "classify",
    "behaviour",
)
"""The order in which `circuits --help` lists commands; those that it does not name follow, by name."""

FORMER: Mapping[tuple[str, str], tuple[str, bool]] = {
    ("tables", "--terms"): ("terms", False),
    ("tables", "--layers"): ("layers", False),
    ("tables", "--compress"): ("compress", False),
    ("lens", "--train-tuned"): ("train", True),
    ("attention", "--labels"): ("labels", True),
}
"""Command and option → the subcommand that does what the option did, and whether the option had a value: that is the
subcommand's first argument."""


class Commands(TyperGroup):
    """The commands. A name of two words is a subcommand: it wins over an argument of the first word's command."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The names, those of one word, in their order."""
        known = {name: place for place, name in enumerate(ORDER)}
        names = [name for name in super().list_commands(ctx) if " " not in name]
        return sorted(names, key=lambda name: (known.get(name, len(known)), name))

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """The command that the words begin with."""
        args = renamed(args)
        name = " ".join(args[:2])
        if len(args) > 1 and name in self.commands:
            return name, self.commands[name], args[2:]
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of that name, whose help ends with its subcommands."""
        command = super().get_command(ctx, cmd_name)
        below = {name: self.commands[name] for name in self.commands if name.startswith(f"{cmd_name} ")}
        if command is not None and below:
            width = max(map(len, below))
            lines = [f"  circuits {name.ljust(width)}   {one.get_short_help_str(80)}" for name, one in below.items()]
            command.epilog = "\n".join(["\b", "Subcommands, each with its own --help:", *lines])
        return command

    def invoke(self, ctx: Any) -> Any:
        """Run the command; what a user can get wrong is one line."""
        with stoppable(), plain_errors():
            return super().invoke(ctx)

    def main(self, *args: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        """Parse and run; as a program, end with the exit status. The words of the command line are the contexts' `obj`."""
        given = args[0] if args else extra.get("args")
        extra.setdefault("obj", tuple(sys.argv[1:] if given is None else given))
        if not standalone_mode:
            return super().main(*args, standalone_mode=False, **extra)
        try:
            status = super().main(*args, standalone_mode=False, **extra)
        except Exception as error:
            if type(error).__name__ == "Abort":
                typer.echo("Error: aborted", err=True)
                sys.exit(1)
            if not hasattr(error, "format_message"):  # the parser's errors: typer carries a click of its own
                raise
            sys.exit(_refuse(error))
        sys.exit(status if isinstance(status, int) else 0)


def renamed(words: list[str]) -> list[str]:
    """A command line with an option that has become a subcommand, as it is written now; says so on stderr."""
    for place, word in enumerate(words):
        option, _, value = word.partition("=")
        if word == "--":
            break
        if (words[0], option) not in FORMER:
            continue
        name, has_value = FORMER[words[0], option]
        typer.echo(f"Note: circuits {words[0]} {option} is now circuits {words[0]} {name}", err=True)
        rest = words[place + 1 :]
        first = [value] if value else rest[:has_value]
        return [words[0], name, *first, *words[1:place], *rest[has_value and not value :]]
    return words


def _refuse(error: Any) -> int:
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
    else:
        context = getattr(error, "ctx", None)
        path = context.command_path if context else "circuits"
        typer.echo(f"Error: {one_line(error.format_message()).rstrip('.?')}; {path} --help says more", err=True)
    return error.exit_code
