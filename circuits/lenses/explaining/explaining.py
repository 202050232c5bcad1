"""Explain, simulate, score (Bills et al. 2023): say what neurons look for, and test what is said."""

import contextlib
import dataclasses
import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from circuits.errors import AnswerError, CircuitsError, NonFiniteError, shown
from circuits.graph import Node
from circuits.lenses.explaining.excerpts import Excerpt, Excerpts, even_top, excerpts_of, rows_to_read, top_rows
from circuits.lenses.explaining.explanations import ExplainedNeuron, Explanations, NeuronExplanation, scored
from circuits.lenses.explaining.roles import RULE, Explainer, Simulator, role_name, roles, simulator_for
from circuits.lenses.neurons.report import default_corpus
from circuits.models import Model, TokenBatch
from circuits.models.choosing import Neurons, chosen_neurons, parse_neuron
from circuits.progress import Found, Progress, heard, silent
from circuits.runs.runner import shards
from circuits.tasks.sources.corpus import text_rows

WIDTH = 64
"""Tokens of an excerpt, what opens prompts included (Bills et al. 2023)."""
ROWS, FEW_ROWS = 256, 96
"""Prompts that a model writes by itself where no text is given, and those that a large one writes: they take it longest."""
_LARGE = 50_000_000
"""Numbers in the weights of layers from which on a model is large here."""
_ENOUGH = 3
"""Neurons in a row without a usable answer before the first with one, after which it is given up."""


def explain(
    model: Model,
    name: str | Node,
    tokens: TokenBatch | str | None = None,
    *,
    top: int = 20,
    explainer: str | Explainer = RULE,
    simulator: str | Simulator | None = None,
    seed: int = 0,
    known: NeuronExplanation | None = None,
    progress: Progress | None = None,
    found: Found | None = None,
) -> NeuronExplanation:
    """Say what a neuron looks for, and score what is said: the explainer sees half of the excerpts with the largest activations
    and as many random ones; the simulator, given the explanation alone, foretells the activations in the other half.

    The score is the correlation of simulated and real activations over all tokens of the held-out excerpts; excerpts for which
    the simulator gives no usable answer are counted and left out. Raises GraphError for a name that is no neuron of the model,
    PromptError for texts that are too short, EndpointError where a server does not answer, AnswerError where there is not one
    usable answer. However it ends, `found` has heard what was scored before.

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
        known: what an earlier call that was stopped has told `found`: what it has explained and simulated is not asked again,
            where it was asked in the same way.
        progress: hears what is being done, how much of it is done, and how much there is.
        found: hears the explanation before it is tested, and the result; where the work is stopped half-way, the part that is
            scored.
    """
    node, hears = parse_neuron(model, name), heard(found)
    simulator = simulator_for(explainer, simulator)
    explains, simulates = roles(explainer, simulator)
    text = excerpt_text(model, tokens, seed=seed, progress=progress)
    most = even_top(top, len(text))
    assert node.layer is not None and node.index is not None
    best = top_rows(model, text, {node.layer: [node.index]}, top=most, progress=progress)[node]
    excerpts = excerpts_of(model, node, best, text, seed=seed)
    about: dict[str, Any] = {"model": model.name, "weights_sha256": model.fingerprint, "neuron": str(node), "seed": seed}
    about |= {"explainer": role_name(explainer), "simulator": role_name(simulator), "rows": len(text), "scale": excerpts.scale}
    test = _begin(excerpts, explains, known, {**about, "shown": excerpts.shown})
    hears(test.result(about))
    with _kept_when_stopped(lambda why: hears(test.result(about, why))):
        test.run(simulates, progress or silent)
    result = test.result(about)
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

    A neuron that there is no usable answer for is counted, with the reason, and the others follow; where the first three have
    none, AnswerError is raised. Raises what `explain` raises; `found` has then heard all that was finished, and as much of the
    neuron that was at work as was scored.

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
    reused = {one.neuron: one for one in _reused(known, settings)}
    done, unexplained, begun = dict(reused), dict[str, str](), known.begun if known is not None else None

    def table(part: NeuronExplanation | None = None) -> Explanations:
        """What is there so far."""
        rows = tuple(done[str(node)] for node in nodes if str(node) in done)
        return Explanations(**settings, neurons=rows, asked=len(nodes), unexplained=dict(unexplained), begun=part)

    wanted = {layer: list(indices) for layer, indices in chosen.items()}
    best = top_rows(model, text, wanted, top=most, progress=progress)

    def explained(place: int) -> dict[str, Any]:
        """A neuron's row, or why there is none. Which shards there are hangs on no earlier table, so that every process, and
        every run that goes on, has the same."""
        node = nodes[place]
        if str(node) in reused:
            return dataclasses.asdict(reused[str(node)])
        excerpts = excerpts_of(model, node, best[node], text, seed=seed)
        about = {name: settings[name] for name in ("model", "weights_sha256", "explainer", "simulator", "seed")}
        about |= {"neuron": str(node), "rows": len(text), "scale": excerpts.scale}
        try:
            test = _begin(excerpts, explains, begun, {**about, "shown": excerpts.shown})
            with _kept_when_stopped(lambda why: hears(table(test.result(about, why)))):
                test.run(simulates, silent)
        except AnswerError as error:
            return {"unexplained": str(error)}
        score = scored(test.held, test.simulated, seed=seed)
        return dataclasses.asdict(ExplainedNeuron(str(node), test.words, excerpts.scale, score, len(test.unanswered)))

    report("explaining", 0, len(nodes))
    for place, (node, row) in enumerate(zip(nodes, shards("explaining", len(nodes), explained), strict=True), 1):
        if "unexplained" in row:
            unexplained[str(node)] = row["unexplained"]
            if not done and len(unexplained) >= _ENOUGH:
                raise AnswerError(row["unexplained"])
        else:
            done[str(node)] = ExplainedNeuron.of(row)
            if str(node) not in reused:
                hears(table())
        report("explaining", place, len(nodes))
    return table()


def excerpt_text(
    model: Model, tokens: TokenBatch | str | None, *, seed: int = 0, progress: Progress | None = None
) -> TokenBatch:
    """The rows of a text that excerpts are taken from. Raises PromptError where they are too few."""
    if tokens is None:
        tokens = default_corpus(model, count=rows_to_write(model), seed=seed, progress=progress)
    return rows_to_read(model, text_rows(model, tokens, width=WIDTH) if isinstance(tokens, str) else tokens)


def rows_to_write(model: Model) -> int:
    """How many prompts a model writes where no text is given."""
    size = model.n_layers * model.d_model * (4 * model.d_model + 3 * model.d_mlp)
    return FEW_ROWS if size > _LARGE else ROWS


@dataclasses.dataclass(eq=False)
class _Test:
    """An explanation under test: what is foretold of the held-out excerpts, in turn."""

    excerpts: Excerpts
    words: str
    held: list[Excerpt] = dataclasses.field(default_factory=list)
    """Those that were simulated."""
    simulated: list[tuple[float, ...]] = dataclasses.field(default_factory=list)
    unanswered: list[str] = dataclasses.field(default_factory=list)

    def run(self, simulate: Simulator, report: Progress) -> None:
        """Go on where it stands. Raises AnswerError where at the end there is not one usable answer."""
        before, count = self._answers(), len(self.excerpts.held)
        self.held, self.simulated, self.unanswered = [], [], []

        def simulated(place: int) -> dict[str, Any]:
            """What is foretold of one excerpt, or why nothing is."""
            if place < len(before):
                return before[place]
            one = self.excerpts.held[place]
            try:
                return {"values": _checked(simulate(self.words, one.tokens), one, self.words)}
            except AnswerError as error:
                return {"unanswered": str(error)}

        report("simulating", 0, count)
        for place, answer in enumerate(shards("simulating", count, simulated)):
            if "unanswered" in answer:
                self.unanswered.append(answer["unanswered"])
            else:
                self.held.append(self.excerpts.held[place])
                self.simulated.append(answer["values"])
            report("simulating", place + 1, count)
        if not self.held:
            raise AnswerError(f"no answer of {len(self.unanswered)} can be used; the last one: {self.unanswered[-1]}")

    def _answers(self) -> list[dict[str, Any]]:
        """What was answered before the test was stopped, in the order of the excerpts."""
        count, reasons = len(self.held) + len(self.unanswered), iter(self.unanswered)
        values = {one.prompt: simulated for one, simulated in zip(self.held, self.simulated, strict=True)}
        first = self.excerpts.held[:count]
        return [{"values": values[o.prompt]} if o.prompt in values else {"unanswered": next(reasons)} for o in first]

    def result(self, about: dict[str, Any], stopped: str = "") -> NeuronExplanation:
        """What there is so far."""
        return NeuronExplanation(
            **about,
            explanation=self.words,
            shown=self.excerpts.shown,
            held=tuple(self.held),
            simulated=tuple(self.simulated),
            score=scored(self.held, self.simulated, seed=about["seed"]),
            stopped=stopped,
            unanswered=tuple(self.unanswered),
        )


def _begin(excerpts: Excerpts, explains: Explainer, known: NeuronExplanation | None, about: dict[str, Any]) -> _Test:
    """An explanation that is to be tested; one that was tested in part, of the same neuron, excerpts and roles, as far as it
    was."""
    same = known is not None and known.stopped and all(getattr(known, name) == value for name, value in about.items())
    before = known if same else None

    def words(_: int) -> str:
        """The explanation."""
        return explains(excerpts.shown, excerpts.scale) if before is None else before.explanation

    (said,) = shards("explaining", 1, words)
    return (
        _Test(excerpts, said)
        if before is None
        else _Test(excerpts, said, [*before.held], [*before.simulated], [*before.unanswered])
    )


def _checked(given: Sequence[float], one: Excerpt, words: str) -> tuple[float, ...]:
    """What a simulator gave, a finite number a token. Raises CircuitsError and NonFiniteError for anything else."""
    values = tuple(float(value) for value in given)
    if len(values) != len(one.tokens):
        raise CircuitsError(f"the simulator gave {len(values)} numbers for {len(one.tokens)} tokens: expected one a token")
    if not all(map(math.isfinite, values)):
        raise NonFiniteError(f"the simulator gave NaN or infinity for {shown(words)}")
    return values


@contextlib.contextmanager
def _kept_when_stopped(keep: Callable[[str], None]) -> Iterator[None]:
    """Where the work inside is stopped or fails, `keep` hears why before the error goes on; not where answers cannot be used,
    which is no reason to ask again."""
    try:
        yield
    except AnswerError:
        raise
    except BaseException as error:
        keep(str(error) or "interrupted")
        raise


def _reused(known: Explanations | None, settings: dict[str, object]) -> tuple[ExplainedNeuron, ...]:
    """The neurons of an earlier table that was made in the same way."""
    if known is None or any(getattr(known, name) != value for name, value in settings.items()):
        return ()
    return known.neurons


def _hash(text: TokenBatch) -> str:
    """Of the tokens of a text."""
    ids = text.ids.cpu().masked_fill(~text.mask.cpu(), -1)
    return hashlib.sha256(ids.long().numpy().tobytes() + str(tuple(ids.shape)).encode()).hexdigest()
