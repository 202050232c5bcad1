"""The options that commands share, each in one wording, and how they fit together on a command line."""

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any

import typer

from circuits.cli.errors import Context
from circuits.errors import FileFormatError, PromptError

ModelName = Annotated[
    str,
    typer.Option("--model", "-m", help="A bundled model (mini), a Hugging Face directory, a GGUF file, or a hub name (gpt2)."),
]
Device = Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1, mps.")]
Devices = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES",
        help="Spread the layers over several, for models larger than one: cuda:0,cuda:1.",
        show_default=False,
    ),
]
Dtype = Annotated[
    str, typer.Option(metavar="float32|float64|bfloat16", help="Number format of weights and of all that is computed.")
]
Edits = Annotated[
    list[Path] | None,
    typer.Option(
        "--edits",
        metavar="FILE",
        help="An edit of the model's weights (circuits edit) that is on; several times.",
        show_default=False,
    ),
]
Memory = Annotated[int, typer.Option(metavar="MB", min=1, help="Memory that a pass may take, besides the model.")]
PictureFormats = Annotated[
    str, typer.Option("--pictures", metavar="png,svg,pdf", help="As what pictures are written: one or several.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, and nothing else there.")]
Workers = Annotated[int, typer.Option(metavar="N", min=1, help="Processes that share the work; the results are the same.")]
Ray = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS", help="Other machines work too: a Ray cluster (auto, HOST:PORT), or local.", show_default=False
    ),
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Start over where a stopped run of this command would be gone on with.")]
Open = Annotated[Path | None, typer.Option("--open", metavar="FILE", help="Show a saved result again; nothing is computed.")]
Bos = Annotated[
    bool | None,
    typer.Option("--bos/--no-bos", help="Begin prompts with BOS, or without.", show_default="as its tokenizer does"),
]
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of all that is drawn: the same seed gives the same files.")]
AnySeed = Annotated[int, typer.Option(help="Seed of all that is drawn: the same seed gives the same files.")]
Text = Annotated[
    Path | None, typer.Option(metavar="FILE", help="The text that is read.", show_default="what the model writes itself")
]
TextLimit = Annotated[int, typer.Option(min=2, help="Tokens of the text that are read.")]
TextSeed = Annotated[int, typer.Option(min=0, max=2**62, help="Seed of the text that the model writes.")]
CircuitFile = Annotated[Path, typer.Argument(metavar="FILE", help="A circuit: .json or .mib.json.", show_default=False)]
KeyValueHeads = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        help="Key-value heads a layer, for files of EAP-IG and MIB that do not say: scores of a group's heads are summed.",
        show_default="what the file says, else one a head",
    ),
]

LensAnswer = Annotated[
    str | None,
    typer.Option(help="A token whose rank and probability are followed, with its space.", show_default="the model's own"),
]
LensNodes = Annotated[
    str | None, typer.Option(help="Also what nodes write: a1.h2,m3,m0.n5; a0.h1+m3 is a sum.", show_default=False)
]
LensTop = Annotated[int, typer.Option(min=1, help="Top tokens of each row to print and keep.")]
PromptOption = Annotated[
    str | None,
    typer.Option(
        "--prompt",
        metavar="PROMPT",
        help="Another way to give PROMPT, also for one that reads like a subcommand.",
        show_default=False,
    ),
]
Answer = Annotated[str | None, typer.Option(help="The clean prompt's answer, one token.", show_default=False)]
Distractor = Annotated[str | None, typer.Option(help="The corrupt prompt's answer, one token.", show_default=False)]
Clean = Annotated[str | None, typer.Option(help="One pair of your own: the prompt.", show_default=False)]
Corrupt = Annotated[
    str | None, typer.Option(help="The prompt that calls for another answer, with as many tokens.", show_default=False)
]
Task = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Prompts that are made for the model: induction, ioi, greater-than, docstring, facts, facts:RELATION, "
        "gendered-pronoun, agreement, multiple-choice; ioi:swap and the like have other corrupt prompts (docs/howto.md).",
        show_default="induction",
    ),
]
TaskOrFile = Annotated[
    str,
    typer.Option(
        metavar="NAME|FILE",
        help="Prompts that are made for the model: ioi, greater-than, docstring, induction, facts, facts:RELATION, "
        "gendered-pronoun, agreement, multiple-choice; ioi:swap and the like, with other corrupt prompts (docs/howto.md); or a "
        "file of EAP-IG, AutoCircuit, MIB, sparse feature circuits, function vectors, BLiMP, CounterFact, ROME or LRE.",
    ),
]
PromptFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Prompts of your own: a file of EAP-IG, AutoCircuit, MIB, sparse feature circuits, function vectors, BLiMP, "
        "CounterFact, ROME or LRE; its content tells which.",
        show_default=False,
    ),
]
Several = Annotated[
    str | None,
    typer.Option(
        metavar="mean|max",
        help="How several right answers of a prompt in a file count: the mean of their logits, or the largest.",
        show_default="mean",
    ),
]
SkipBad = Annotated[
    bool, typer.Option("--skip-bad", help="Leave out rows of a file that do not fit, and count them by reason.")
]
Count = Annotated[int | None, typer.Option(min=1, max=100_000, help="Prompts.", show_default="32; all of a file")]
MetricName = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="What is measured at the answer: logit_difference, log_probability, probability, probability_difference, "
        "rank, accuracy, or kl, the distance from the model's own answer to the clean prompt.",
    ),
]
DictionaryPaths = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="FILES", help="Dictionaries: what features train wrote, folders of sparsify or SAELens.", show_default=False
    ),
]
DictionaryAt = Annotated[
    str | None,
    typer.Option(
        metavar="PLACE",
        help="The place that the dictionary is of: m2, resid3, mid3, attn3, a3.",
        show_default="as it says",
    ),
]
SearchMetric = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="What is measured at the answer: logit_difference, log_probability, probability, probability_difference, kl; "
        "with methods that take no gradient also rank and accuracy.",
        show_default="the task's own; logit_difference for a file",
    ),
]
RandomCircuits = Annotated[int, typer.Option(help="Random circuits of as many edges that it is held against; 0 = none.")]
NoMinimality = Annotated[bool, typer.Option("--no-minimality", help="Do not ask of nodes whether they are needed; quicker.")]
MinimalityOf = Annotated[
    str | None,
    typer.Option(
        "--minimality",
        metavar="all|N|none",
        help="Of how many nodes to ask whether they are needed, drawn at random.",
        show_default="all, or 60 where a circuit has 96 or more",
    ),
]

ProbeData = Annotated[
    Path | None,
    typer.Option("--data", metavar="FILE", help="Annotated sentences, CoNLL-U.", show_default="made by a small grammar"),
]
ProbeLayers = Annotated[
    str | None,
    typer.Option("--layers", metavar="NUMBERS", help="The residual streams before these layers: 0,5,10.", show_default="all"),
]
ProbeSites = Annotated[
    str | None,
    typer.Option(
        "--sites",
        metavar="NAMES",
        help="Other places: middle, heads, patterns, neurons, or mid3, a3 (a layer's heads), a3.h1, p3, m3.",
        show_default="residual",
    ),
]
Pooled = Annotated[
    str, typer.Option(metavar="last|mean", help="What stands for a word of several tokens: the last one, or their mean.")
]
ProbeWords = Annotated[int, typer.Option(min=100, help="Stop reading sentences after so many words.")]
RandomWeights = Annotated[
    bool, typer.Option("--random/--no-random", help="Also probe the same architecture with random weights.")
]
KeepActivations = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="Keep activations here: the next probe of the same text reads nothing again."),
]


def there(path: Path | None) -> Path | None:
    """A file that an option names. Raises FileFormatError where there is none, before a model is loaded for it."""
    if path is not None and not Path(path).is_file():
        raise FileFormatError(f"{path}: {'not a file' if Path(path).exists() else 'No such file or directory'}")
    return path


ClassifierFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="A saved classifier, on the model it was trained on.",
        show_default="a head trained on the texts",
        callback=there,
    ),
]
LabelledData = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="FILE",
        help="Texts with labels: TSV, CSV or JSON Lines with columns text and label.",
        show_default="reviews that are made, with a shortcut",
    ),
]
LabelledTests = Annotated[
    list[Path] | None,
    typer.Option("--test", metavar="FILE", help="Texts to judge on; several times.", show_default="a fifth of the texts"),
]
LabelNames = Annotated[
    list[str] | None,
    typer.Option("--rename", metavar="OLD=NEW", help="Another name of a label; several times.", show_default=False),
]
LabelledCount = Annotated[int | None, typer.Option(min=4, help="Training texts, drawn.", show_default="all")]

OUTSIDE = {
    "corrupt": "the corrupt prompt's values",
    "mean": "the corrupt prompts' mean",
    "zero": "nothing",
}
"""What edges outside a circuit carry, in words."""


def folder(job: str, of: str = "MODEL") -> Any:
    """The option that names the folder for a command's files."""
    return typer.Option(help="Folder for the files.", show_default=f"out/{job}-{of}")


_SETTING = ("model", "device", "devices", "dtype", "edits", "bos", "out", "pictures", "as_json", "open_file")
_NOT_A_PROMPT = ("train", "labels")
"""Subcommands of commands that take a prompt."""


def repeated(context: Context, *but: str, only: Collection[str] | None = None) -> list[str]:
    """What is on the command line, as words of another one: all that is asked for `but` these parameters (or `only` those),
    and those of a `Setting`, which says the model itself."""
    arguments, options = list[str](), list[str]()
    for parameter in context.command.params:
        name, value = parameter.name or "", context.params.get(parameter.name or "")
        source = context.get_parameter_source(name)
        if name in (*_SETTING, *but) or (only is not None and name not in only):
            continue
        if source is None or source.name != "COMMANDLINE":
            continue
        values = value if isinstance(value, (list, tuple)) else [value]
        if name in ("prompt", "prompt_option") and value in _NOT_A_PROMPT:
            options += ["--prompt", str(value)]
        elif name == "prompt_option" or not parameter.opts[0].startswith("-"):
            arguments += map(str, values)
        elif isinstance(value, bool):
            options += [parameter.opts[0] if value else parameter.secondary_opts[0]]
        else:
            options += [word for one in values for word in (parameter.opts[0], str(one))]
    return [*arguments, *options]


def prompt_of(argument: str | None, option: str | None) -> str | None:
    """The prompt, given as the argument PROMPT or as `--prompt`. Raises PromptError where it is given twice."""
    if argument is not None and option is not None:
        raise PromptError("PROMPT and --prompt are two ways to give the prompt: leave out one of them")
    return argument if option is None else option
