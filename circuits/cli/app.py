"""The commands: what they are called, what they take, what they print."""

from pathlib import Path
from typing import Annotated

import typer

from circuits.cli.errors import Commands, Context, plain_errors, refuse_with_open

app = typer.Typer(
    cls=Commands,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

ModelName = Annotated[
    str, typer.Option("--model", "-m", help="A bundled model (mini), a Hugging Face directory, or a hub name (gpt2).")
]
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of the random tokens: the same seed gives the same files.")]
Device = Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1, mps.")]
Dtype = Annotated[
    str, typer.Option(metavar="float32|float64|bfloat16", help="Number format of weights and of all that is computed.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, and nothing else there.")]
CircuitFile = Annotated[Path, typer.Argument(metavar="FILE", help="A circuit: .json or .mib.json.", show_default=False)]


def _print_version(wanted: bool) -> bool:
    if wanted:
        import importlib.metadata

        typer.echo(f"circuits {importlib.metadata.version('transformer-circuits')}")
        raise typer.Exit
    return wanted


@app.callback()
def circuits(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Find circuits in transformer language models.

    A model runs as a graph: every head and MLP reads the residual stream and adds to it. Heads are named a0.h1 (head 1
    of layer 0), MLPs m3, edges a0.h1->a2.h0<k>.

    \b
    Start with:
      circuits induction              find the induction heads of the bundled model
      circuits heads --model gpt2     score every head of GPT-2
      circuits trace                  where the bundled model keeps a fact
      circuits lens                   what it would say after each layer
      circuits discover               the circuit behind a task, judged
      circuits COMMAND --help         what a command does, with examples
    """


@app.command()
@plain_errors()
def induction(
    model: ModelName = "mini",
    out: Annotated[
        Path | None, typer.Option(help="Folder for the files.", show_default="out/induction-MODEL", file_okay=True)
    ] = None,
    sequences: Annotated[int, typer.Option(min=2, max=100_000, help="Random sequences that effects are measured on.")] = 32,
    seed: Seed = 0,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    as_json: AsJson = False,
) -> None:
    """Find a model's induction heads and the heads that feed them.

    Induction heads continue a repeated text: at "A B ... A" they attend to B and predict it. They need
    previous-token heads that tell B's position what stood before it. This command finds both kinds, measures by
    ablation on repeated random tokens that they matter, and writes the circuit as files and pictures.

    \b
    Examples:
      circuits induction
      circuits induction --model gpt2 --sequences 64
      circuits induction --model path/to/checkpoint --out results --json
    """
    from circuits.cli.commands import induction as command

    command.run(model=model, out=out, sequences=sequences, seed=seed, device=device, dtype=dtype, as_json=as_json)


@app.command()
@plain_errors()
def heads(
    model: ModelName = "mini",
    text: Annotated[
        Path | None,
        typer.Option(help="A text file to measure previous_token and first_token on (default: random tokens)."),
    ] = None,
    sort: Annotated[str, typer.Option(help="Score to sort by.")] = "prefix_matching",
    top: Annotated[int, typer.Option(min=1, help="Heads to print.")] = 10,
    out: Annotated[Path | None, typer.Option(help="Also write every head's scores to a .csv or .png file.")] = None,
    seed: Seed = 0,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    as_json: AsJson = False,
) -> None:
    """Score every attention head of a model.

    prefix_matching: attention to what followed earlier copies of the current token. copying: the share of what the head
    raises that falls on tokens it attends to, from -1 to 1; a head that copies nothing scores about -0.92.
    previous_token, duplicate_token, first_token: attention to the token before, to earlier copies of the current token,
    to the prompt's first token.

    \b
    Examples:
      circuits heads
      circuits heads --model gpt2 --sort copying --top 20
      circuits heads --text book.txt --out scores.csv
    """
    from circuits.cli.commands import heads as command

    command.run(model=model, text=text, sort=sort, top=top, out=out, seed=seed, device=device, dtype=dtype, as_json=as_json)


@app.command()
@plain_errors()
def trace(
    context: Context,
    model: ModelName = "mini",
    prompt: Annotated[str | None, typer.Option(help="A prompt; the answer is what the model makes of it.")] = None,
    subject: Annotated[str | None, typer.Option(help="The part of the prompt to corrupt.")] = None,
    facts: Annotated[
        Path | None, typer.Option(help="Trace the facts of a file: ROME's known_1000.json, or an LRE relation.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after so many facts.", show_default="all")] = None,
    kinds: Annotated[
        str,
        typer.Option(
            help="What to put back: states (after a layer), mlp, attention (windows of layers), "
            "states_severed_mlp, states_severed_attention."
        ),
    ] = "states,mlp,attention",
    severed: Annotated[bool, typer.Option("--severed", help="Add both severed kinds.")] = False,
    window: Annotated[
        int | None, typer.Option(min=1, help="Layers of a window.", show_default="10, or half of fewer than 20 layers")
    ] = None,
    noise: Annotated[
        float | None, typer.Option(help="Standard deviation of the noise.", show_default="3 sd of the subjects' embeddings")
    ] = None,
    draws: Annotated[int, typer.Option(min=1, help="Draws of noise.")] = 10,
    replacement: Annotated[
        str | None, typer.Option(help="Instead of noise: another subject, of as many tokens.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the noise: the same seed gives the same files.")] = 0,
    bos: Annotated[
        bool | None, typer.Option("--bos/--no-bos", help="Begin prompts with BOS.", show_default="as the tokenizer asks")
    ] = None,
    memory: Annotated[int, typer.Option(metavar="MB", min=1, help="Memory for patched runs, besides the model.")] = 256,
    out: Annotated[Path | None, typer.Option(help="Folder for the files.", show_default="out/trace-MODEL")] = None,
    open_file: Annotated[
        Path | None, typer.Option("--open", metavar="FILE", help="Show a saved trace.json or traces.json; nothing is traced.")
    ] = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    as_json: AsJson = False,
) -> None:
    """Find where a model keeps a fact, by causal tracing.

    The subject is corrupted with noise, so that the answer is lost; then, token by token and layer by layer, the clean
    run's value is put back. Where the answer's probability returns, what the model knows passes. With --facts, averages
    over facts by the role of the token, as in ROME (Meng et al. 2022).

    \b
    Examples:
      circuits trace
      circuits trace --model gpt2 --prompt "The Space Needle is in the city of" --subject "The Space Needle"
      circuits trace --model gpt2-xl --facts known_1000.json --limit 100
      circuits trace --severed --window 1 --noise 0.3
      circuits trace --open out/trace-mini/trace.json
    """
    from circuits.cli.commands import trace as command

    if open_file is not None:
        refuse_with_open(context)
        command.reopen(open_file, out=out, as_json=as_json)
        return
    question = command.Question(prompt, subject, facts, limit)
    corruption = command.Corruption(
        noise, replacement, draws, command.parse_kinds(kinds, severed), window, seed, bos, memory * 2**20
    )
    command.run(question, corruption, model=model, out=out, device=device, dtype=dtype, as_json=as_json)


@app.command()
@plain_errors()
def recall(
    model: ModelName = "mini",
    facts: Annotated[
        Path | None,
        typer.Option(help="Facts of a file: ROME's known_1000.json, or an LRE relation.", show_default="those of mini"),
    ] = None,
    count: Annotated[int, typer.Option(min=2, max=100_000, help="Pairs of facts that effects are measured on.")] = 32,
    min_effect: Annotated[
        float,
        typer.Option(
            help="Share of the clean-corrupt gap that an edge must cost by itself; lower finds more, and takes longer."
        ),
    ] = 0.03,
    seed: Seed = 0,
    memory: Annotated[int, typer.Option(metavar="MB", min=1, help="Memory for patched runs, besides the model.")] = 256,
    out: Annotated[Path | None, typer.Option(help="Folder for the files.", show_default="out/recall-MODEL")] = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    as_json: AsJson = False,
) -> None:
    """Find the circuit behind recalled facts: positions, heads and single neurons.

    Each fact is paired with another one of its relation, in the same words. The search goes backwards from the logits and
    takes an edge where patching it alone, exactly, costs enough of the difference between the two answers; neurons are
    screened by gradient and verified by patching. The found nodes are ablated together, beside random sets of as many.

    \b
    Examples:
      circuits recall
      circuits recall --model gpt2 --facts known_1000.json --count 64
      circuits recall --min-effect 0.1 --json
    """
    from circuits.cli.commands import recall as command

    command.run(
        model=model,
        facts=facts,
        count=count,
        min_effect=command.check_effect(min_effect),
        seed=seed,
        memory=memory,
        out=out,
        device=device,
        dtype=dtype,
        as_json=as_json,
    )


@app.command()
@plain_errors()
def models(as_json: AsJson = False) -> None:
    """List the models that can be loaded.

    \b
    Examples:
      circuits models
      circuits models --json
    """
    from circuits.cli.commands import models as command

    command.run(as_json=as_json)


@app.command()
@plain_errors()
def export(
    file: CircuitFile,
    to: Annotated[str, typer.Option(metavar="graphml|dot|mib|json", help="Format to write.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="File to write.", show_default="stdout")] = None,
) -> None:
    """Write a circuit in another format.

    graphml: for Gephi, yEd, Cytoscape and networkx. dot: for Graphviz. mib: for MIB and EAP-IG. json: this package's own,
    the only one that keeps roles and evidence whole.

    \b
    Examples:
      circuits export circuit.json --to graphml --out circuit.graphml
      circuits export circuit.json --to dot | dot -Tsvg > circuit.svg
    """
    from circuits.cli.commands import files

    files.export(file, to=to, out=out)


@app.command()
@plain_errors()
def info(file: CircuitFile, as_json: AsJson = False) -> None:
    """Say what is in a circuit file.

    \b
    Examples:
      circuits info out/induction-mini/circuit.json
      circuits info circuit.mib.json --json
    """
    from circuits.cli.commands import files

    files.info(file, as_json=as_json)


def main() -> None:
    """Run the command line."""
    app()
