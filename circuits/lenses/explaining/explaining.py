"""Explain, simulate, score (Bills et al. 2023): say what neurons look for, and test what is said."""

import hashlib
import math
from collections.abc import Iterable

from circuits.errors import CircuitsError, EndpointError, NonFiniteError, shown
from circuits.graph import Node
from circuits.lenses.explaining.excerpts import Excerpts, even_top, excerpts_of, rows_to_read, top_rows
from circuits.lenses.explaining.explanations import ExplainedNeuron, Explanations, NeuronExplanation, scored
from circuits.lenses.explaining.roles import RULE, Explainer, Simulator, role_name, roles, simulator_for
from circuits.lenses.neurons.report import default_corpus
from circuits.models import Model, TokenBatch
from circuits.models.choosing import Neurons, chosen_neurons, parse_neuron
from circuits.progress import Found, Progress, heard, silent
from circuits.tasks.sources.corpus import text_rows

WIDTH = 64
"""Tokens of an excerpt, what opens prompts included (Bills et al. 2023)."""
ROWS = 256
"""Prompts that a model writes by itself where no text is given."""


def explain(
    model: Model,
    name: str | Node,
    tokens: TokenBatch | str | None = None,
    *,
    top: int = 20,
    explainer: str | Explainer = RULE,
    simulator: str | Simulator | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    found: Found | None = None,
) -> NeuronExplanation:
    """Say what a neuron looks for, and score what is said: the explainer sees half of the excerpts with the largest activations
    and as many random ones; the simulator, given the explanation alone, foretells the activations in the other half.

    The score is the correlation of simulated and real activations over all tokens of the held-out excerpts. Raises GraphError
    for a name that is no neuron of the model, PromptError for texts that are too short, EndpointError where a server does not
    answer: `found` has then heard what was scored before.

    Args:
        model: the model that the neuron is of.
        name: the neuron, such as `m3.n7`.
        tokens: prompts, each of which is an excerpt, or a text, which is cut into some of 64 tokens (default: what the model
            writes by itself, and facts of `mini`).
        top: excerpts with the largest activations, half of them shown and half held out; as many random ones.
        explainer: `rule`, `model:DIR`, `endpoint:URL`, or a function of excerpts and the activation that counts as 10.
        simulator: likewise, or a function of an explanation and tokens that gives a number from 0 to 10 for each (default: who
            explains; a rule where that is a function).
        seed: that of the random excerpts, the intervals, and the text where none is given.
        progress: hears what is being done, how much of it is done, and how much there is.
        found: hears the explanation; where an endpoint fails half-way, the part that is scored.
    """
    node, hears = parse_neuron(model, name), heard(found)
    simulator = simulator_for(explainer, simulator)
    explains, simulates = roles(explainer, simulator)
    text = excerpt_text(model, tokens, seed=seed, progress=progress)
    most = even_top(top, len(text))
    assert node.layer is not None and node.index is not None
    best = top_rows(model, text, {node.layer: [node.index]}, top=most, progress=progress)[node]
    excerpts = excerpts_of(model, node, best, text, seed=seed)
    words = explains(excerpts.shown, excerpts.scale)
    about = {"rows": len(text), "explainer": role_name(explainer), "simulator": role_name(simulator), "seed": seed}
    simulated = list[tuple[float, ...]]()
    try:
        for one in _simulated(excerpts, words, simulates, progress or silent):
            simulated.append(one)
    except EndpointError as error:
        if simulated:
            hears(_made(model, node, words, excerpts, simulated, **about, stopped=str(error)))
        raise
    result = _made(model, node, words, excerpts, simulated, **about)
    hears(result)
    return result


def explain_neurons(
    model: Model,
    neurons: Neurons,
    tokens: TokenBatch | str | None = None,
    *,
    top: int = 20,
    explainer: str | Explainer = RULE,
    simulator: str | Simulator | None = None,
    seed: int = 0,
    known: Explanations | None = None,
    progress: Progress | None = None,
    found: Found | None = None,
) -> Explanations:
    """Explain many neurons, one after the other: `explain` for each, with one look through the text for all.

    Raises what `explain` raises; `found` has then heard all that was finished.

    Args:
        model: the model that the neurons are of.
        neurons: names (`m3.n7`) or layers (`m3`).
        tokens: prompts or a text, as for `explain`.
        top: excerpts of each neuron, as for `explain`.
        explainer: who explains, as for `explain`.
        simulator: who simulates, as for `explain`.
        seed: that of all that is drawn.
        known: an earlier table; its neurons are not explained again where it is of the same model, text and options.
        progress: hears what is being done, how much of it is done, and how much there is.
        found: hears the table so far after every neuron.
    """
    chosen, hears, report = chosen_neurons(model, neurons), heard(found), progress or silent
    simulator = simulator_for(explainer, simulator)
    explains, simulates = roles(explainer, simulator)
    text = excerpt_text(model, tokens, seed=seed, progress=progress)
    most = even_top(top, len(text))
    nodes = [Node("neuron", layer, index) for layer, indices in chosen.items() for index in indices]
    settings = {"model": model.name, "weights_sha256": model.fingerprint, "text_sha256": _hash(text), "top": most, "seed": seed}
    settings |= {"explainer": role_name(explainer), "simulator": role_name(simulator)}
    done = {one.neuron: one for one in _reused(known, settings)}

    def table() -> Explanations:
        """What is there so far."""
        return Explanations(**settings, neurons=tuple(done[str(n)] for n in nodes if str(n) in done), asked=len(nodes))

    missing = [node for node in nodes if str(node) not in done]
    wanted = {layer: [node.index or 0 for node in missing if node.layer == layer] for layer in chosen}
    best = top_rows(model, text, {k: v for k, v in wanted.items() if v}, top=most, progress=progress) if missing else {}
    for node in missing:
        report("explaining", len(done), len(nodes))
        excerpts = excerpts_of(model, node, best[node], text, seed=seed)
        words = explains(excerpts.shown, excerpts.scale)
        simulated = [*_simulated(excerpts, words, simulates, silent)]
        done[str(node)] = ExplainedNeuron(str(node), words, excerpts.scale, scored(excerpts.held, simulated, seed=seed))
        hears(table())
    report("explaining", len(nodes), len(nodes))
    return table()


def excerpt_text(
    model: Model, tokens: TokenBatch | str | None, *, seed: int = 0, progress: Progress | None = None
) -> TokenBatch:
    """The rows of a text that excerpts are taken from. Raises PromptError where they are too few."""
    if tokens is None:
        tokens = default_corpus(model, count=ROWS, seed=seed, progress=progress)
    return rows_to_read(model, text_rows(model, tokens, width=WIDTH) if isinstance(tokens, str) else tokens)


def _simulated(excerpts: Excerpts, words: str, simulate: Simulator, report: Progress) -> Iterable[tuple[float, ...]]:
    """What is foretold of each held-out excerpt, in turn."""
    for place, one in enumerate(excerpts.held):
        report("simulating", place, len(excerpts.held))
        values = tuple(float(value) for value in simulate(words, one.tokens))
        if len(values) != len(one.tokens):
            raise CircuitsError(f"the simulator gave {len(values)} numbers for {len(one.tokens)} tokens: expected one a token")
        if not all(map(math.isfinite, values)):
            raise NonFiniteError(f"the simulator gave NaN or infinity for {shown(words)}")
        yield values
    report("simulating", len(excerpts.held), len(excerpts.held))


def _made(
    model: Model,
    node: Node,
    words: str,
    excerpts: Excerpts,
    simulated: list[tuple[float, ...]],
    *,
    rows: int,
    explainer: str,
    simulator: str,
    seed: int,
    stopped: str = "",
) -> NeuronExplanation:
    held = excerpts.held[: len(simulated)]
    return NeuronExplanation(
        model=model.name,
        weights_sha256=model.fingerprint,
        neuron=str(node),
        explanation=words,
        explainer=explainer,
        simulator=simulator,
        scale=excerpts.scale,
        rows=rows,
        shown=excerpts.shown,
        held=held,
        simulated=tuple(simulated),
        score=scored(held, simulated, seed=seed),
        seed=seed,
        stopped=stopped,
    )


def _reused(known: Explanations | None, settings: dict[str, object]) -> tuple[ExplainedNeuron, ...]:
    """The neurons of an earlier table that was made in the same way."""
    if known is None or any(getattr(known, name) != value for name, value in settings.items()):
        return ()
    return known.neurons


def _hash(text: TokenBatch) -> str:
    """Of the tokens of a text."""
    ids = text.ids.cpu().masked_fill(~text.mask.cpu(), -1)
    return hashlib.sha256(ids.long().numpy().tobytes() + str(tuple(ids.shape)).encode()).hexdigest()
