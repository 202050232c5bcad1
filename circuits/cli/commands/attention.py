"""`circuits attention`: attention traced back to the tokens of one prompt."""

from pathlib import Path
from typing import Annotated, Any

import typer

import circuits
from circuits.cli.app import app
from circuits.cli.errors import Context, refuse_with_open
from circuits.cli.options import (
    Open,
    PromptOption,
    Seed,
    prompt_of,
)
from circuits.cli.questions.attention import AttentionQuestion
from circuits.cli.saved import opened, written_again
from circuits.cli.settings import Setting, with_setting
from circuits.errors import PromptError

FILES = {
    "attention.json": "everything measured; circuits attention --open shows it again",
    "attention.csv": "a row a token",
    "attention.png": "it as a picture",
    "patterns.png": "where the heads asked for look",
}
"""What `circuits attention` writes, and what for; patterns.png with --heads alone."""
PROMPT = "The capital of France is"


@app.command()
@with_setting("attention", memory=True, long=False)
def attention(
    context: Context,
    prompt: Annotated[str | None, typer.Argument(metavar="PROMPT", help="What the model reads.", show_default=PROMPT)] = None,
    prompt_option: PromptOption = None,
    answer: Annotated[
        str | None, typer.Option(help="The token that is explained, with its space.", show_default="the model's own")
    ] = None,
    position: Annotated[
        int | None, typer.Option(help="The token to trace from, from 0 or negative from the end.", show_default="-1")
    ] = None,
    heads: Annotated[
        str | None, typer.Option(metavar="NAMES", help="Also draw these heads' patterns: a1.h0,a1.h3.", show_default=False)
    ] = None,
    replace: Annotated[
        str | None,
        typer.Option(
            metavar="mean|resample",
            help="What replaces a token's embedding: the mean of all tokens, or random tokens (8 draws).",
            show_default="mean",
        ),
    ] = None,
    seed: Seed = 0,
    open_file: Open = None,
    *,
    setting: Setting,
) -> None:
    """Trace attention back to tokens, beside what losing them costs.

    LAT multiplies attention patterns down the layers, rollout adds the residual connection, flow is the maximum flow with
    attention as capacity, norm weighs the last look by the size of what is moved. Beside them: how much of the answer's
    log-probability is lost when the token's embedding is replaced, and when no later token may attend to it. Where the two
    sides disagree, believe the second: attention is a hint, not a cause.

    \b
    Examples:
      circuits attention
      circuits attention "The Eiffel Tower is in" -m gpt2 --answer " Paris"
      circuits attention --heads a1.h0,a1.h3
      circuits attention "The cat sat. The cat" --position 4 --replace resample
      circuits attention --open out/attention-mini/attention.json
      circuits attention labels en_ewt-ud-dev.conllu --limit 500
      circuits attention --prompt labels
    """
    if open_file is not None:
        refuse_with_open(context)
        reopen(open_file, setting)
        return
    said, place = prompt_of(prompt, prompt_option), -1 if position is None else position
    run(AttentionQuestion(PROMPT if said is None else said, answer, place, heads, replace or "mean", seed), setting)


def run(question: AttentionQuestion, setting: Setting) -> None:
    """Trace, write the files, print the report."""
    from circuits.cli.reports.attention import attention_report, draw_patterns, next_steps, write

    expected = [name for name in FILES if question.head_names or name != "patterns.png"]
    with setting.parts(FILES, expected=expected, options="--memory") as work:
        model = setting.load(work.progress)
        for name in question.head_names:
            model.graph().node(circuits.Node.parse(name))
        tokens = model.to_tokens(question.prompt)
        if tokens.ids.shape[1] < 2:
            raise PromptError(
                f"the prompt is {tokens.ids.shape[1]} token: attention has nothing to choose from; give a longer one"
            )
        options: dict[str, Any] = {"position": question.position, "kind": question.replace, "seed": question.seed}
        options |= {"budget": setting.budget, "progress": work.progress}
        found = circuits.attention(model, tokens, answers=question.answer, **options)
        found.save(work.staging / "attention.json")
        work.publish()
        write(found, work.staging)
        if question.head_names:
            draw_patterns(model, question.head_names, found, tokens.ids, work.staging / "patterns.png")
    files = work.written
    if question.head_names:
        files["patterns.png"] = f"where {', '.join(question.head_names)} look"
    own = "the model's own" if question.answer is None else "as asked"
    steps = next_steps(question, setting)
    setting.answer(attention_report(found, files, question.prompt, f"answer ({own})", steps))


def reopen(file: Path, setting: Setting) -> None:
    """Print a saved trace again, and write its table and figure beside it, or into the folder asked for."""
    from circuits.cli.reports.attention import attention_report, write

    found = opened(circuits.patching.AttentionTrace, file)
    if len(found) > 1:
        raise PromptError(f"{file}: holds {len(found)} prompts; the command shows one: read it with AttentionTrace.load")
    setting, files = written_again(found, file, setting, write, FILES)
    setting.answer(attention_report(found, files, "".join(found.tokens[0][found.opening[0] :]), "answer"))
