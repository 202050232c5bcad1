"""One small result of each kind, made by hand: awkward text, absent parts, negative numbers."""

import dataclasses
from typing import Any

import torch

from circuits.attribution import EdgeScores
from circuits.concepts import (
    AttributionGraph,
    ConceptCurve,
    ConceptTest,
    DictionaryReport,
    Equivariance,
    FeatureCircuit,
    FeatureReport,
    FeatureScores,
    GraphNode,
    NeuronForm,
    NeuronForms,
    Specialisation,
    Superposition,
)
from circuits.concepts.feature_nodes.scores import TapTotal
from circuits.graph import Circuit, Edge, Graph
from circuits.graph.places import places
from circuits.heads.attention.attention_probe import AttentionProbe
from circuits.heads.attention.labels import HeadLabels
from circuits.heads.attention.tracing import TRACINGS
from circuits.heads.composition import Composition
from circuits.heads.compression import CompressedPart, Compression
from circuits.heads.dynamics import TrainingCurves
from circuits.heads.scores import HeadScores
from circuits.heads.weight_tables.all_tables import Bigram, HeadSummary, Tables
from circuits.heads.weight_tables.bugs import SkipTrigramBug
from circuits.heads.weight_tables.skip_trigrams import SkipTrigram
from circuits.heads.weight_tables.virtual import VirtualHead
from circuits.lenses.comparison import LensComparison
from circuits.lenses.direct.direct_logits import DirectLogits
from circuits.lenses.explaining.excerpts import Excerpt
from circuits.lenses.explaining.explanations import ExplainedNeuron, Explanations, ExplanationScore, NeuronExplanation
from circuits.lenses.explaining.module_explanations import ModuleExplanation, SascCandidate
from circuits.lenses.explaining.scores import Correlation
from circuits.lenses.lens import Lens
from circuits.lenses.neurons.clamping import Clamp, Shift
from circuits.lenses.neurons.contexts import Context
from circuits.lenses.neurons.memories import KeyValueAgreement, Values
from circuits.lenses.neurons.places import Places, Triggers
from circuits.lenses.neurons.report import NeuronReport
from circuits.lenses.neurons.updates import SubUpdates, Update
from circuits.lenses.tuned_lens import TunedLens
from circuits.models import WeightEdit
from circuits.patching.ablation.ablation import Ablation
from circuits.patching.ablation.layers import LayerRemoval
from circuits.patching.ablation.self_repair import SelfRepair
from circuits.patching.ablation.terms import Terms
from circuits.patching.effects import Effects
from circuits.patching.tracing.attention_trace import EFFECTS, AttentionTrace
from circuits.patching.tracing.knockout import Knockout
from circuits.patching.tracing.results import Trace, Traces
from circuits.probes.anomalies.results import Anomalies
from circuits.probes.coreference.results import CoreferenceProbes
from circuits.probes.patterns.results import FreeHeads, HeadPatterns, HeadPruning, PrunedClass
from circuits.probes.prompts.results import PromptProbes
from circuits.probes.ranking.results import NeuronKnockout, NeuronRankings
from circuits.probes.results import HiddenLayer, Probes, PropertyUse
from circuits.probes.spans.results import ScalarMix, SpanProbes
from circuits.probes.trees.results import TreeProbes
from circuits.search.discover import Discovery
from circuits.search.judging.compare import Comparison, compare
from circuits.search.judging.curves import Curve
from circuits.search.judging.roc import Roc
from circuits.search.judging.verdict import Need, Removal, Verdict
from circuits.search.mechanisms.letter_results import KeptDimensions, LetterHead, LetterHeads
from circuits.search.screening import Screening, Tested
from circuits.search.stability.results import Consensus, Recurrence, SearchRun, SizeOverlap
from circuits.search.studying.results import (
    MeasuredBehaviour,
    Overlap,
    State,
    StudiedCircuit,
    Study,
    StudyPlan,
    StudySettings,
    StudyStep,
)
from circuits.statistics import Effect
from circuits.tasks import BehaviourScores, PromptReport
from circuits.uses import (
    Amplified,
    ClassifierScores,
    EditScores,
    EditsTogether,
    ErTest,
    Faithfulness,
    FeedbackEffects,
    InsideChange,
    KeyMoments,
    Shortcuts,
    Stability,
    WordAttributions,
)
from circuits.uses.attributing.showing import ShownExample
from circuits.uses.editing import EditOutcome, Odds, Written
from circuits.uses.feedback import WordChange
from circuits.uses.inside import InsideNeurons, SharedEdges
from circuits.uses.shortcuts import EarlyStep, ShortcutWord

GRAPH = Graph(n_layers=2, n_heads=2, n_key_value_heads=1, d_mlp=8)
TOKENS = ("<b>", " Paris &", "\n")
SHA = "0f" * 32


def numbers(*shape: int) -> torch.Tensor:
    """Numbers of either sign that a float64 holds and a float32 does not."""
    count = int(torch.tensor(shape).prod()) if shape else 1
    return ((torch.arange(count, dtype=torch.float64) * 7 % 11 - 4) / 3).reshape(shape)


def whole(*shape: int) -> torch.Tensor:
    """Whole numbers from 0."""
    return torch.arange(int(torch.tensor(shape).prod())).reshape(shape) % 3


def effects() -> Effects:
    names = ("a0.h0", "a0.h1", "a1.h0", "a1.h1")
    about = {"metric": "logit_difference", "kind": "zero", "sizes": [1, 2]}
    return Effects(
        names, numbers(4, 2), torch.tensor([2.0, 3.0]).double(), numbers(2) - 1, "noising", ("<i>a</i>", "b"), about, 3
    )


def ablation() -> Ablation:
    return Ablation(("a0.h0", "m1+a1.h1@2"), numbers(2, 3), numbers(3), ("a", "b", "c"), {"kind": "mean"}, 5)


def self_repair() -> SelfRepair:
    return SelfRepair("mlp", "resample", numbers(2, 3), numbers(2, 3) / 2, numbers(2, 3) / 3)


def layer_removal() -> LayerRemoval:
    parts = [numbers(2, 2, 3) / n for n in (1, 2, 3, 4)]
    return LayerRemoval("mini", "mean", ("attention", "both"), numbers(3), whole(3) + 1, *parts, later=numbers(2, 2, 2))


def terms(orders: int = 1) -> Terms:
    return Terms("mini", "zero", numbers(3, 2) + 5, numbers(2) + 3, whole(2) + 2, numbers(orders, 2, 2), 6.25)


def trace() -> Trace:
    restored = {"states": numbers(3, 2, 2) / 10, "mlp": numbers(3, 2, 2) / 20}
    return Trace("mini", SHA, "<b> Paris", TOKENS, (0, 1), " x", 0.75, numbers(2).abs() / 9, restored, 0.5, 10, 1)


def traces() -> Traces:
    return Traces((trace(),), (("a prompt", "a <reason>"),))


def knockout() -> Knockout:
    blocked = {"subject": numbers(2).abs() / 4, "last": numbers(2).abs() / 5}
    return Knockout("mini", "<b> Paris", TOKENS, (0, 1), " x", 0.5, blocked, 3)


def attention_trace() -> AttentionTrace:
    tracings = {name: numbers(2, 4) / (at + 1) for at, name in enumerate(TRACINGS)}
    lost = {f"{name}{unit}": numbers(2, 4) + at for at, name in enumerate(EFFECTS) for unit in ("", "_logit")}
    tokens, places = ((*TOKENS, "d"), TOKENS), (3, 2)
    about = {"answers": (" x", "y"), "log_probabilities": -numbers(2).abs(), "logits": numbers(2), "kind": "mean", "seed": 4}
    return AttentionTrace("mini", SHA, tokens, (True, False), True, places, tracings=tracings, effects=lost, **about)


def edge_scores() -> EdgeScores:
    edges = GRAPH.edge_count
    errors = torch.full((2, edges), torch.nan, dtype=torch.float64)
    errors[0] = 0.25
    about = {"method": "eap", "metric": "logit_difference"}
    return EdgeScores.listed(GRAPH, numbers(2, edges), errors, labels=("subject", "<end>"), metadata=about)


def circuit() -> Circuit:
    edges = {"input->a0.h0<v>": None, "a0.h1->a1.h0<k>": 0.5, "a1.h0->logits": -1.5}
    about = {"method": "eap", "task": "induction"}
    return Circuit(GRAPH, edges, roles={"a0.h1": "<previous token>"}, metadata=about)


def curve(draws: int = 2) -> Curve:
    points = (Effect(0.25, 0.125, 0.5), Effect(0.75, 0.5, 1.0), Effect(1.0, 0.9, 1.1))
    return Curve((0.1, 0.5, 1.0), (3, 14, 28), points, numbers(draws, 3), {"outside": "corrupt"})


def roc() -> Roc:
    return Roc(torch.tensor([0.0, 0.5, 1.0]).double(), torch.tensor([0.0, 1.0, 1.0]).double(), 0.75, 0.5, 2, 4)


def comparison() -> Comparison:
    return compare(circuit(), Circuit(GRAPH, {"a0.h1->a1.h0<k>": -0.5, "m0->logits": 1.0}, metadata={"method": "acdc"}))


def screening() -> Screening:
    strong, weak = Effect(0.5, 0.25, 0.75), Effect(0.0, -0.1, 0.1)
    one = Tested(Edge.parse("input->a0.h0<v>"), 0.25, weak, strong, ("a0.h0",))
    rest = [Tested(Edge.parse(name), None, strong, strong) for name in ("a0.h0->logits", "input->a0.h0<q>")]
    return Screening(
        GRAPH, (one, *rest, Tested(Edge.parse("m0->m1"), 0.1, weak, weak)), (("a0.h0", "m1"),), 3, {"method": "screen"}
    )


def discovery() -> Discovery:
    return Discovery(circuit(), verdict(), edge_scores(), curve(), screening())


def letter_heads() -> LetterHeads:
    sure = {name: Effect(0.5, 0.25, 0.75) for name in ("patched", "item", "more", "label", "choice")}
    heads = (LetterHead("a0.h1", Effect(1.5, 1.0, 2.0), others=Effect(0.0, 0.0, 0.25), at=2, **sure),)
    heads = (*heads, LetterHead("a1.h0", Effect(-1.5, -2.0, 1.0), others=Effect(0.0, 0.0, 0.25), at=2, **sure))
    kept = (KeptDimensions("a0.h1", "queries", 2, 4, 0.005, 0.75, 0.5, -0.125, torch.nan),)
    kept = (*kept, KeptDimensions("a0.h1", "values", 0, 4, 0.0, 0.0, *[torch.nan] * 3))
    share = {name: Effect(0.75, 0.5, 1.0) for name in ("right", "among")}
    about = {"model": "<b>", "weights_sha256": SHA, "task": "multiple-choice", "prompts": 8, "labels": 4, "held_out": 4}
    losses = {"tolerance": 0.01, "loss": 0.25, "joint_loss": 0.5, "compression": compression()}
    return LetterHeads(difference=Effect(2.0, 1.5, 2.5), heads=heads, kept=kept, **share, **about, **losses)


def recurrence() -> Recurrence:
    runs = [SearchRun(model, seed, part, 3, None) for model in ("<b>", "two & 3") for seed in range(3) for part in (0, 1)]
    runs[0] = SearchRun("<b>", 0, 0, 3, Effect(0.9, 0.8, 1.0))
    edges = sorted(zip(*places(GRAPH, circuit().edges), strict=True))
    writers, readers = torch.tensor(edges).T
    chosen = (torch.arange(len(runs) * len(edges)) % 5 > 0).reshape(len(runs), len(edges))
    scores = numbers(len(runs), len(edges)).where(chosen, torch.nan)
    kept = (Consensus("<b>", "half", 3, Effect(1.5, 1.0, 2.0), Effect(-0.5, -1.0, 0.0)), Consensus("<b>", "all", 0, None, None))
    sizes = (SizeOverlap("<b>", 2, Effect(0.5, 0.25, 1.0), 0.125),)
    about = {"graph": GRAPH, "task": "<i> & 1", "method": "eap", "metric": "logit_difference", "sample": "halves"}
    arrays = {"writers": writers, "readers": readers, "chosen": chosen, "scores": scores}
    return Recurrence(runs=tuple(runs), consensus=kept, circuit=circuit(), by_size=sizes, held_out=4, **about, **arrays)


def verdict() -> Verdict:
    removed, need = Removal(("a0.h0", "m1"), "greedy", 0.5, 0.25), Need("a1.h0", -0.5, ("m0",))
    return Verdict(
        3, 4, 0.125, 20, Effect(0.9, 0.8, 1.0), (0.1, -0.2), 1 / 3, (removed,), (need, Need("m1", 0.0)), None, {"seed": 1}
    )


def measured(state: State = "has") -> MeasuredBehaviour:
    sure = {name: Effect(0.5, 0.25, 0.75) for name in ("right", "preferred", "clean", "gap")}
    about = {"task": f"<b> {state}", "about": "what", "state": state, "why": "for 1 reason"}
    return MeasuredBehaviour(**about, metric="logit_difference", unit="nats", prompts=8, independent=6, tokens=5, **sure)


def settings() -> StudySettings:
    numbers = {"edges": 3, "count": 8, "random_circuits": 20, "seed": 2}
    return StudySettings(task="<b> has", method="refine", minimality=False, dtype="float32", prepend_bos=None, **numbers)


def study_plan() -> StudyPlan:
    about = {"model": "mini", "weights_sha256": SHA, "tasks": ("<b> has", "b"), "seed": 2, "budget": 60.5, "measuring": 1.25}
    steps, left_out = (StudyStep(settings=settings(), estimate=2.5),), {"b": "it would take 1 h"}
    return StudyPlan(**about, behaviours=(measured(), measured("has not")), steps=steps, left_out=left_out)


def studied_circuit() -> StudiedCircuit:
    about = {"edges": 3, "nodes": ("a0.h0", "m1"), "prompts_searched": 4, "prompts_held_out": 20, "drawn": 30}
    words = {"mechanism": "1 head", "mechanism_verdict": "found"}
    return StudiedCircuit(model="mini", weights_sha256=SHA, settings=settings(), verdict=verdict(), **about, **words)


def study() -> Study:
    both = {"first": "<b> has", "second": "b", "kind": "heads", "shared": 1, "sizes": (2, 3), "expected": 0.5, "p_value": 0.25}
    about = {"model": "mini", "weights_sha256": SHA, "seed": 2, "heads": {"a0.h0": ("<b> has", "b")}, "left_out": {"c": "time"}}
    circuits = (studied_circuit(), dataclasses.replace(studied_circuit(), settings=dataclasses.replace(settings(), task="b")))
    overlaps = (Overlap(**both, names=("a0.h0",)),)
    return Study(**about, behaviours=(measured(), measured("cannot be asked")), circuits=circuits, overlaps=overlaps)


def lens() -> Lens:
    about = {"model": "mini", "weights_sha256": SHA, "rows": ("resid0", "resid1"), "kinds": ("residual", "nodes")}
    flags = {"tuned": False, "answered": True, "mask": torch.tensor([[True, True], [False, True]])}
    ids = {"ids": whole(2, 2), "targets": whole(2, 2), "depths": whole(2, 2), "followed": flags["mask"]}
    rows = {name: numbers(2, 2, 2).abs() for name in ("entropy", "cross_entropy", "divergence", "probability", "logit")}
    tops = {"rank": whole(2, 2, 2), "top_ids": whole(2, 2, 2, 1), "top_probabilities": numbers(2, 2, 2, 1).abs() / 4}
    return Lens(**about, **flags, **ids, **rows, **tops, words=dict(enumerate(TOKENS)))


def lens_comparison() -> LensComparison:
    return LensComparison("mini", numbers(2, 3).abs() + 1, numbers(2, 3).abs(), 40)


def tuned_lens() -> TunedLens:
    return TunedLens(
        "mini", SHA, numbers(2, 3, 3).float(), numbers(2, 3).float(), numbers(4, 2).float(), {"seed": 1, "steps": 4}
    )


def word_attributions() -> WordAttributions:
    missing = {name: torch.tensor([[0.25, torch.nan], [0.5, torch.nan]]).double() for name in ("without", "alone")}
    missing |= {f"{name}_random": torch.tensor([[0.75, torch.nan], [0.5, torch.nan]]).double() for name in ("without", "alone")}
    tested = Faithfulness((0.1, 0.5), torch.tensor([0.75, 0.5]).double(), **missing, draws=2)
    texts = {"texts": ("a <b>good</b> film", "bad"), "words": (("a", "<b>good</b>", "film"), ("bad",))}
    about = {"labels": (1, 1), "predictions": (1, 0), "explained": (1, 0), "margins": torch.tensor([1.5, 0.25]).double()}
    totals = {"totals": torch.tensor([1.0, torch.nan]).double(), "rest": torch.zeros(2).double()}
    totals |= {"errors": torch.tensor([0.01, torch.nan]).double(), "steps": (16, 32), "faithfulness": tested}
    how = {"method": "integrated", "baseline": "mean", "numbers": ((-0.25, 1.25, 0.0), (0.25,))}
    return WordAttributions("mini<b>", SHA, ("neg", "p<i>os"), **how, **texts, **about, **totals)


def stability() -> Stability:
    pairs = {"texts": ("a <b>good</b> film", "bad plot"), "others": ("a fine film", "poor plot"), "kept": (True, False)}
    pairs |= {"replaced": torch.tensor([1, 2]), "searched": (True, False), "spearman": numbers(2)}
    taus = torch.tensor([0.75, torch.nan]).double()
    return Stability("mini<b>", SHA, "gradient", "wor<d>s.json", **pairs, kendall=taus, given=4, tried=3, seed=2)


def amplified() -> Amplified:
    shown = (ShownExample("a <b>good</b> film", 1, 0, 0.25, ("<b>good</b>", "film"), ("a", "film")),)
    answers = {
        "labels": torch.tensor([1, 0]),
        "small": torch.tensor([1, 1]),
        "answers": torch.tensor([[-1, 0], [1, 0], [0, 1]]),
    }
    about = {"classes": ("neg", "p<i>os"), "names": ("bad", "go<o>d"), "method": "direct", "examples": shown}
    about |= {"wanted": 2, "pool": "4 te<x>ts"}
    return Amplified("mini with a head", SHA, "lar<g>er", **about, texts=("<i>one</i>", "two"), **answers, seed=3)


def classifier_scores() -> ClassifierScores:
    columns = {name: numbers(2).abs() for name in ("accuracy", "low", "high", "loss", "majority", "bag_of_words")}
    about: dict[str, Any] = {"model": "mini<b>", "weights_sha256": SHA, "trained": "head trained on 480 texts"}
    about |= {"classes": ("b<a>d", "good"), "splits": ("held out", "fl<i>pped"), "texts": whole(2)}
    return ClassifierScores(recalls=numbers(2, 2).abs(), **columns, **about)


def shortcuts() -> Shortcuts:
    some = Effect(0.5, 0.25, 0.75)
    one = ShortcutWord("fri<day>", "b<a>d", 0.25, 7, some, "mon & day", some, some, outside=1.0)
    other = dataclasses.replace(one, word="fine", counterpart=None, flips=Effect(-0.5, -1.0, 0.0), outside=None)
    about: dict[str, Any] = {"model": "mini<b>", "weights_sha256": SHA, "classes": ("b<a>d", "good"), "method": "input times"}
    about |= {"training_texts": 9, "types": 40, "head": 2, "texts": 8, "in_head": some, "expected": 0.125, "above": some}
    accuracy = dict.fromkeys(("as they are", "random", "flipped", "ot<h>er"), some)
    early = (EarlyStep(1, some, {"as they are": some}), EarlyStep(8, some, {"as they are": some}))
    about |= {"accuracy": accuracy, "swapped": ("fri<day>",), "early": early, "degree": some, "rationales": True}
    return Shortcuts(words=(one, other), **about)


def feedback_effects() -> FeedbackEffects:
    some = Effect(0.5, 0.25, 0.75)
    about: dict[str, Any] = {"model": "mini<b>", "before_sha256": SHA, "after_sha256": SHA, "items": 3, "told": 5}
    about |= {"unused": ("sun<day>",), "strength": 10.0, "splits": ("held out", "fl<i>pped"), "changed": (0, 4)}
    words = (
        WordChange("fri<day>", False, 7, some, some, Effect(-0.5, -1.0, 0.0)),
        WordChange("fine", True, 5, some, some, some),
    )
    about |= {"before": (some, some), "after": (some, some), "gains": (some, some), "words": words}
    return FeedbackEffects(texts=("a <b> text",), predictions=(("b<a>d", "good"),), **about)


def inside_change() -> InsideChange:
    some = Effect(0.5, 0.25, 0.75)
    about: dict[str, Any] = {"model": "mini<b>", "before_sha256": SHA, "after_sha256": SHA, "words": ("fri<day>",)}
    about |= {"kinds": ("the shortcut", "the meaning"), "texts": (5, 6), "whole_before": (some, some), "nodes": ("a0.h0", "m0")}
    columns = {name: numbers(2, 2) for name in ("before", "after", "change", "low", "high")}
    about |= {"overlaps": (SharedEdges(0.25, 0.75, 0.125), SharedEdges(0.5, 0.5)), "neurons": inside_neurons()}
    about |= {"verdicts_before": (verdict(), verdict()), "verdicts_after": (verdict(), verdict())}
    return InsideChange(whole_after=(some, some), shared_edges=(0.5, 1.0), **about, **columns)


def inside_neurons() -> InsideNeurons:
    """Three of them, in two kinds."""
    names = ("before", "after", "low", "high", "p_values", "patched_before", "patched_after")
    about: dict[str, Any] = {"names": ("m0.n1", "m0.n7", "m1.n2"), "scored": 16, "held_before": (0.5, 0.25)}
    about |= {
        "held_after": (0.125, 1.0),
        "active_before": (("fri<day>", "a"), (), ("$x_1$",)),
        "active_after": ((), ("b",), ()),
    }
    about |= {"raises_before": ("<b>", "pos", "pos"), "raises_after": ("pos", "pos", "<b>")}
    return InsideNeurons(**about, **{name: numbers(2, 3) for name in names})


def er_test() -> ErTest:
    about: dict[str, Any] = {"model": "mini<b>", "weights_sha256": SHA, "rationale": "gradient", "distance": "mse"}
    about |= {"strength": 10.0, "trained": "all weights trained on 9 texts", "seeds": (0, 3)}
    about |= {"tests": ("held out", "fl<i>pped"), "kinds": ("in distribution", "unseen")}
    return ErTest(plain=numbers(2, 2).abs(), regularised=numbers(2, 2).abs() / 2, **about)


def direct_logits() -> DirectLogits:
    rows = ("input", "a0.h0", "a0.h1", "m0", "bias")
    return DirectLogits("mini", rows, numbers(5, 2), numbers(2), ("x", "y"), (), False, (TOKENS, TOKENS), numbers(2, 2, 3))


def triggers(lowest: bool = True) -> Triggers:
    places = Places(numbers(3, 2).float(), whole(3, 2), whole(3, 2) + 1)
    least = Places(-numbers(3, 2).float(), whole(3, 2), whole(3, 2) + 1) if lowest else None
    about = (
        torch.tensor([0, 0, 1]),
        torch.tensor([2, 7, 1]),
        places,
        least,
        30,
        numbers(3).float(),
        numbers(3).abs().float() / 2,
    )
    return Triggers("mini", SHA, *about)


def neuron_report() -> NeuronReport:
    place = Context(1.5, 2, 1, TOKENS, 1, (0.5, 1.5, 0.0), None)
    named = ((" the", 0.5), ("\n", -0.25))
    about = {"places": 30, "mean": 0.125, "active": 0.25, "norm": 2.0, "raises": named, "lowers": named, "through": None}
    ends = {"keys": {"input": (named, named)}, "writers": (("a0.h1", 0.5),), "readers": (("m1.n3", -0.5),)}
    return NeuronReport("mini", SHA, "m0.n7", (place,), (), **about, **ends)


def agreement() -> KeyValueAgreement:
    shares = dict.fromkeys(("share", "chance", "low", "high"), (0.25, 0.5))
    within = {f"{name}_within": (0.5, 0.75) for name in shares}
    return KeyValueAgreement("mini", (0, 1), (12, 9), **shares, **within, k=10, permutations=20, seed=1)


def behaviour_scores() -> BehaviourScores:
    values = {"accuracy": torch.tensor([1.0, 0.0, 0.5]).double(), "chance": torch.tensor([0.5, 0.5, 0.5]).double()}
    notes = {"accuracy": "share of pairs", "chance": "a coin"}
    return BehaviourScores("mini", "minimal pairs", ("a", "<b>", "c"), ("one", "two", "one"), values, notes)


def prompt_report(drawn: int | None = 5) -> PromptReport:
    words = {"answers": (" x", "y", " x"), "distractors": ("y", "<b>", "y"), "said": ("<b>", "y", "\n")}
    counts = {"lengths": whole(3) + 4, "columns": whole(3) + 3, "ranks": whole(3), "repeats": torch.tensor([0, 1, 0])}
    about = ("mini", "logit_difference", ("a", "<b>", "a"))
    return PromptReport(*about, **words, **counts, clean=numbers(3), corrupt=numbers(3) - 1, drawn=drawn)


def compression() -> Compression:
    parts = (CompressedPart("a0.h0", "qk", 2, 0.001, 96), CompressedPart("a0.h0", "ov", 3, -0.001, 144))
    return Compression("mini", 8, 0.01, 60, 2.5, 2.625, parts, 1024)


def training_curves() -> TrainingCurves:
    curves = {"prefix_matching": numbers(4).abs() / 3, "loss": 5 - numbers(4)}
    return TrainingCurves("mini", (0, 10, 20, 40), curves, "a1.h0", "a0.h1")


def head_labels() -> HeadLabels:
    tables = {name: numbers(2, 2, 2).abs() / 3 for name in ("accuracy", "errors", "gain_errors", "p_values")}
    rows = {"counts": whole(2) + 50, "offsets": whole(2) - 1, "baseline": numbers(2).abs(), "baseline_errors": numbers(2).abs()}
    about = {"sentences": 9, "left_out": {"too long": 1, "words": 0}, "seed": 2}
    return HeadLabels("mini", SHA, (("nsubj", "head"), ("obj", "dependent")), **rows, **tables, **about)


def attention_probe() -> AttentionProbe:
    parts = {"all": (0.5, 0.01), "earlier": (0.25, 0.02), "later": (0.75, 0.03)}
    scores = {name: dict(parts) for name in ("probe", "offset", "uniform")}
    about = {"counts": {"all": 9, "earlier": 4, "later": 5}, "offset": -1, "train_words": 40, "loss": 1.25, "sentences": 7}
    return AttentionProbe("mini", SHA, numbers(2, 2), numbers(2, 2) + 1, scores, **about, left_out={"words": 0}, seed=3)


def tables() -> Tables:
    one, two = SkipTrigram("a0.h1", 0, 1, 2, 1.5, 0.5, 3.0), SkipTrigram("a0.h1", 0, 2, 1, 0.5, 0.25, 2.0)
    bug = SkipTrigramBug((one, two), (two, one), 0.75, 0.5)
    virtual = (VirtualHead("a0.h0", "a1.h1", 2.0, 0.5, 0.25, -0.5, 1, 2), VirtualHead("a0.h1", "a1.h1", 1.0, 0.5, 0.25, 0.5))
    parts = ((Bigram(0, 1, -0.5),), (HeadSummary("a0.h0", 0.5, -0.5),), (one, two), (bug,), virtual)
    return Tables("mini", True, False, 100, 1.5, *parts, words=dict(enumerate(TOKENS)))


def head_scores() -> HeadScores:
    errors = {"copying": torch.full((2, 2), torch.nan, dtype=torch.float64), "previous_token": numbers(2, 2).abs()}
    return HeadScores("mini", {"copying": numbers(2, 2) / 4, "previous_token": numbers(2, 2).abs() / 4}, errors, 10, 0)


def composition() -> Composition:
    return Composition(numbers(2, 2, 2, 2), numbers(2, 2, 2, 2) + 1, numbers(2, 2, 2, 2) / 2, 0.125)


def values() -> Values:
    parts = (torch.tensor([0, 1]), torch.tensor([3, 0]), whole(2, 3) % 3, numbers(2, 3), whole(2, 3) % 3, -numbers(2, 3))
    return Values("mini", *parts, numbers(2).abs() + 1, dict(enumerate(TOKENS)), "a1.h0")


def sub_updates() -> SubUpdates:
    updates = (Update("m0.n3", 1.5, 0.75, 0.5, -0.25, ("<b>", " the")), Update("m1.n0", -0.5, 0.5, 0.25, 0.125, ()))
    return SubUpdates("mini", "a <b> c", 2, "c", " d", updates, {0: 0.5, 1: 1.5}, {0: (0.25, 0.0), 1: (0.5, 1.0)})


def clamp() -> Clamp:
    shifts = (Shift(" a", 0.5, 0.25), Shift("<b>", 0.25, 0.5))
    held = {"m0.n3": 2.0}, {"m0.n3": -0.125}
    return Clamp("mini", "a <b> c", *held, shifts, shifts[::-1], shifts[1:], shifts[:1], 0.375, (" a", "<b>"))


def concept_test() -> ConceptTest:
    names = ("accuracy", "chance", "score", "spread", "null", "null_spread", "p_values", "published", "slope", "low", "high")
    columns = {name: numbers(2).abs() / 5 for name in names} | {"p_values": torch.tensor([0.01, 1.0]).double()}
    curve = ConceptCurve("resid0", (-1.0, 0.0, 1.0), (0.5, 0.75, 1.5), (0.125, 0.0, 0.25), (0.75, 0.75, 0.5), 0.25, 0.125, 0.75)
    about = {"sets": 30, "examples": 40, "prompts": 8, "whole": 0.75, "curves": (curve,), "seed": 3}
    return ConceptTest("mini<b>", SHA, "co<b>ncept", "log odds of <i>", ("resid0", "resid1"), **columns, **about)


def dictionary_report() -> DictionaryReport:
    numbers_of = {"active": torch.tensor([0.0, 0.25]).double(), "mean": numbers(2).abs(), "largest": numbers(2).abs()}
    about = ("mini<b>", SHA, "di<b>ct", "made by <i>", "m1", "topk", 40, 1.5, 0.75, 2.0, 2.25, 3.5)
    return DictionaryReport(*about, **numbers_of, effect=numbers(2), triggers=("", " <b>"), raises=("' a' '<i>'", "'\\n'"))


def feature_report() -> FeatureReport:
    context = Context(1.5, 0, 1, TOKENS, 1, (0.0, 1.5, 0.25), None)
    words = ((" a", 0.5), ("<b>", 0.25)), (("\n", -0.5),)
    about = ("mini<b>", SHA, "di<b>ct", "m1", 1, (context,), 40, 0.25, 0.75, 1.0)
    return FeatureReport(*about, *words, 0.125, -0.5, 0.75, 0.0625, 3)


def feature_scores() -> FeatureScores:
    exact = torch.tensor([[0.5, 0.25], [float("nan")] * 2]).double()
    total = TapTotal("m1", "di<b>ct", 40, 3, -0.5, -0.25, -0.25, -0.75)
    ends = torch.tensor([2.0, 1.5]).double(), torch.tensor([0.5, 0.25]).double()
    names, about = ("m1.f3", "m1.error"), {"metric": "logit_difference", "method": "eap", "model": "mini<b>"}
    return FeatureScores(names, numbers(2, 2) / 9, numbers(2, 3) / 9, (-2, -1, 0), exact, *ends, (total,), about, 3)


def feature_circuit() -> FeatureCircuit:
    effect, left = Effect(0.75, 0.5, 1.0), Effect(0.125, -0.25, 0.25)
    curve = {"sizes": (1, 2), "curve": (left, effect), "curve_without": (effect, left), "random": numbers(3, 2) / 9}
    curve |= {"curve_out": (left, left), "errors_out": left, "null_out": (0.125,), "p_out": 0.5}
    curve |= {"errors_in": effect, "errors_alone": left}
    about: dict[str, Any] = {"outside": "corrupt", "model": "mini<b>"}
    return FeatureCircuit(("m1.f3", "m1.error"), (-0.5, 0.25), 8, effect, left, (0.5, -0.25), 0.25, **curve, metadata=about)


def attribution_graph() -> AttributionGraph:
    embedded = GraphNode("embedding", "embedding", -1, 0, 7, 0.0, 0.5, "<b>")
    feature = GraphNode("feature", "m0", 0, 1, 3, 1.5, 0.25, "raises ' a' '<i>'")
    logit = GraphNode("logit", "logits", 2, 1, 9, 0.75, 0.0, " (p=")
    ends = {"sources": torch.tensor([0, 1]), "targets": torch.tensor([1, 2]), "weights": torch.tensor([0.5, -0.25]).double()}
    nodes, shares = (
        (embedded, feature, logit),
        {"completeness": 0.5, "replacement": 0.25, "nodes_before": 9, "links_before": 20},
    )
    return AttributionGraph("mini<b>", SHA, "a <b>", ("<bos>", "a"), 2, nodes, **ends, **shares, metadata={"nodes": 0.75})


def symmetry_found() -> Equivariance:
    about = ("mini<b>", SHA, "<b> and c exchanged", "heads", (0, 2), torch.tensor([[1, 0], [0, 1]]))
    units = {"unit_gaps": numbers(2, 2).abs() / 9, "unit_stays": numbers(2, 2).abs() / 4}
    layers = {"gaps": numbers(2).abs() / 9, "stays": numbers(2).abs() / 4, "gains": numbers(2, 3) / 9}
    chance = {"random": numbers(2, 3).abs(), "relabelled": numbers(2, 2).abs(), "p_values": numbers(2).abs() / 9}
    return Equivariance(*about, **units, **layers, **chance, prompts=9, seed=3)


def specialisation() -> Specialisation:
    shares = numbers(2, 2, 3).abs() / numbers(2, 2, 3).abs().sum(dim=-1, keepdim=True)
    heads = {"divergence": numbers(2, 2).abs(), "p_values": torch.tensor([[0.01, 1.0], [0.5, 0.25]]).double()}
    whole = {"information": torch.tensor([0.5, 0.25]).double(), "errors": torch.tensor([0.125, 0.0]).double()}
    null = {"null": numbers(2, 3).abs() / 9, "chance": torch.tensor([0.25, 0.5]).double(), "grouped": numbers(3).abs() / 9}
    about = {"grouped_chance": 0.75, "sentences": 5, "left_out": {"too long": 1, "not aligned": 0}, "seed": 3}
    names = ("mini<b>", SHA, "upos", ("NOUN", "<b>", "X"), torch.tensor([7, 3, 2]))
    return Specialisation(*names, shares, **heads, **whole, **null, **about)


def superposition() -> Superposition:
    weights = {"importance": numbers(3).abs() + 1, "W": numbers(2, 2, 1, 2, 3), "b": numbers(2, 2, 1, 3)}
    about = {"loss": numbers(2, 2, 1).abs(), "steps": 10, "batch": 4, "seed": 3}
    return Superposition(("relu", "linear"), torch.tensor([0.0, 0.75]).double(), **weights, **about)


def neuron_forms() -> NeuronForms:
    null = {"null": 0.125, "null_high": 0.25, "p_value": 0.25}
    held = {"held_iou": 0.25, "held_null": 0.0625, "held_p": 0.01, "held_adjusted": 0.02}
    words = {"words": (("<b>", 3), ("\n", 1)), "neuron_alone": (), "form_alone": (("a", 2),)}
    half = {"half_form": "upos=NOUN", "half_iou": 0.5}
    counts = {"active": 4, "holds": 5, "both": 3, "concept": "upos=NOUN", "concept_iou": 0.25}
    first = NeuronForm(
        "m0.n1", "(a AND NOT <b>) OR c", 3, 0.5, **counts, **null, **half, **held, rise=0.5, rise_error=0.25, **words
    )
    gone = dict.fromkeys((*null, *held, "rise", "rise_error"))
    second = NeuronForm("m0.n2", "c", 1, 0.5, **counts, **gone, **half, **words, examples=(("both", "the [[<b>]]"),))
    about = {"source": "words.json", "concepts": 9, "words": 40, "unit": "words", "rule": "above 0", "length": 5, "beam": 10}
    rest = {"penalty": 0.99, "moves": 3, "left_out": {"at fewer than 10 words": 2}, "loss": 2.5, "loss_tokens": 30}
    return NeuronForms("mini<b>", SHA, (first, second), ("m0.n3",), **about, **rest, agreement=Effect(0.5, -0.25, 0.75), seed=1)


def probes() -> Probes:
    shares = {"accuracy": numbers(3).abs() / 3, "errors": numbers(3).abs() / 90, "macro_f1": numbers(3).abs() / 4}
    control = {"control": numbers(3).abs() / 5, "selectivity": numbers(3) / 9, "selectivity_errors": numbers(3).abs() / 80}
    rest = {"spread": torch.full((3,), torch.nan).double(), "bits": numbers(3).abs() + 0.5, "penalties": numbers(3).abs() + 0.1}
    about = {"words": 900, "judged": 180, "sentences": 60, "left_out": {"too long": 1}, "seeds": (0,)}
    baselines = {"majority": (0.5, 0.01), "neighbours": (0.6, 0.02)}
    one = HiddenLayer("resid2", 8, 0.75, 0.01, 0.5, 0.25, 0.02)
    hidden = (one, dataclasses.replace(one, hidden=1, accuracy=0.5, linear=True))
    where = ("mini", SHA, "<b>upos", ("NOUN", "<i>&"), "last", ("resid0", "resid1", "resid2"))
    random = {"random": (0.25, 0.5, 0.125), "random_errors": (0.01, 0.02, 0.03)}
    return Probes(*where, **about, **shares, **control, **rest, baselines=baselines, **random, hidden=hidden)


def neuron_rankings() -> NeuronRankings:
    shares = {"accuracy": numbers(2, 2).abs() / 4, "errors": numbers(2, 2).abs() / 80, "selectivity": numbers(2, 2) / 9}
    rest = {"selectivity_errors": numbers(2, 2).abs() / 70, "whole": (0.75, 0.01), "majority": (0.5, 0.02)}
    about = {"words": 900, "judged": 180, "sentences": 60, "left_out": {"too long": 1}, "candidates": 4}
    places = {"layers": torch.tensor([0, 0, 2, 2]), "indices": torch.tensor([0, 1, 0, 1]), "sizes": torch.tensor([1, 2])}
    scores = torch.where(numbers(2, 4) > 0.5, torch.nan, numbers(2, 4)).double()
    order = {"ways": ("lca", "probeless"), "order": torch.tensor([[3, 1, 0, 2], [0, 1, 2, 3]]), "scores": scores}
    where = ("mini", SHA, "<b>upos", ("NOUN", "<i>&"), "last")
    return NeuronRankings(*where, **about, **places, **order, **shares, **rest, others=("<b>other",))


def neuron_knockout() -> NeuronKnockout:
    lost, whole_loss = numbers(2, 3, 1, 2, 2) / 5, torch.tensor([2.5, torch.nan]).double()
    lost[..., 1] = torch.nan
    about = {
        "lost": lost,
        "errors": lost.abs() / 9,
        "beyond": numbers(2, 1, 2) / 5,
        "beyond_errors": numbers(2, 1, 2).abs() / 50,
    }
    counts = {"whole": whole_loss, "counts": torch.tensor([40, 0]), "draws": 3, "sentences": 6}
    return NeuronKnockout("mini", SHA, "<b>upos", ("lca", "probeless"), ("mean",), (1, 2), **counts, **about)


def property_use() -> PropertyUse:
    lost, whole_loss = numbers(2, 4, 2) / 5, torch.tensor([2.5, torch.nan]).double()
    parts = {
        "ranks": whole(2) + 1,
        "whole": whole_loss,
        "counts": torch.tensor([40, 0]),
        "lost": lost,
        "errors": lost.abs() / 9,
    }
    beyond = {"beyond": numbers(2).abs() / 5, "beyond_errors": numbers(2).abs() / 90}
    return PropertyUse("mini", SHA, "<b>upos", ("resid0", "resid2"), **parts, **beyond, draws=3, sentences=12, seed=0)


def correlation(value: float | None = 0.5) -> Correlation:
    why = "" if value is not None else "what is simulated is the same at every token"
    return Correlation(value, value and value - 0.25, value and value + 0.25, 9, 3, why)


def neuron_explanation() -> NeuronExplanation:
    excerpts = tuple(Excerpt(kind, 2, TOKENS, (0.5, -1.5, 0.0)) for kind in ("top", "random"))
    score = ExplanationScore(correlation(), correlation(None), correlation(-0.25))
    about = {"explanation": 'the token "<b>" (10)', "explainer": "rule", "simulator": "rule", "scale": 0.5, "rows": 40}
    about |= {"shown": excerpts, "held": excerpts, "simulated": ((10.0, 0.0, 0.25), (0.0, 0.0, 0.0))}
    return NeuronExplanation("mini", SHA, "m0.n7", **about, score=score, seed=1)


def explanations() -> Explanations:
    score = ExplanationScore(correlation(), correlation(None), correlation(-0.25))
    rows = tuple(ExplainedNeuron(f"m0.n{n}", 'the token "<b>" (10)', 0.5, score) for n in (1, 7))
    return Explanations("mini", SHA, SHA, "rule", "rule", 20, 1, rows, 5)


def module_explanation() -> ModuleExplanation:
    candidate = SascCandidate('the token "<b>" (10)', 1.5, 0.5, 2.0, ("a <b> c", "a \n c"))
    about = {"reads": "activation", "explainer": "rule", "author": "rule", "ngrams": (("<b>", 2.0), ("\n", 1.5))}
    numbers = {"mean": -0.25, "sigma": 0.5, "counted": 90, "candidates": (candidate,), "texts": 20, "seed": 1}
    return ModuleExplanation("mini", SHA, "a0.h1", **about, **numbers)


def tree_probes() -> TreeProbes:
    shares = {"uuas": numbers(2).abs() / 3, "errors": numbers(2).abs() / 90, "root": numbers(2).abs() / 2}
    rest = {"distance": numbers(2), "depth": torch.tensor([torch.nan, 0.5]).double(), "root_errors": numbers(2).abs() / 20}
    about = {"judged": 40, "relations": 300, "trained": 160, "seed": 2, "random": (0.25, 0.5), "random_errors": (0.01, 0.02)}
    chain = {"uuas": 0.375, "error": 0.01, "distance": 0.25}
    return TreeProbes("mini<b>", SHA, "mean", 8, ("resid0", "resid1"), **shares, **rest, chain=chain, **about)


def span_probes() -> SpanProbes:
    mix = ScalarMix((0, 1), (0.25, 0.75), (0.5, 0.625), (0.01, 0.02), Effect(1.0, 0.5, 1.25))
    about = {"trained": 160, "judged": 40, "sentences": 20, "left_out": {"too long": 1}, "rank": 8, "hidden": 4, "seed": 2}
    shares = {"f1": numbers(2).abs() / 3, "errors": numbers(2).abs() / 90}
    labels = {"by_label": torch.tensor([[0.5, torch.nan], [0.25, 1.0]]).double(), "baselines": {"majority": (0.25, 0.01)}}
    rest = {"mix": mix, "random": (0.25, 0.5), "random_errors": (0.01, 0.02)}
    return SpanProbes("mini", SHA, "a<b>", ("x<y>", "z"), 2, "last", ("resid0", "resid1"), **about, **shares, **labels, **rest)


def head_patterns() -> HeadPatterns:
    shares = torch.tensor([[[0.25, 0.75], [1.0, 0.0]], [[0.5, 0.5], [0.0, 1.0]]]).double()
    about = {"accuracy": Effect(0.75, 0.5, 0.9), "confusion": torch.tensor([[3, 1], [0, 4]]), "prompts": 4, "tokens": 8}
    return HeadPatterns("mini", SHA, ("previous", "mixed"), shares, **about, seed=1)


def head_pruning() -> HeadPruning:
    rows = (
        PrunedClass("previous", "zero", 1, Effect(0.5, 0.25, 0.75), Effect(0.0, -0.125, 0.125)),
        PrunedClass("previous", "mean", 1, Effect(0.25, 0.125, 0.5), Effect(-0.25, -0.5, 0.25)),
    )
    free = FreeHeads("mean", 0.125, ("a1.h0", "a0.h1"), 0.1, Effect(0.125, 0.0, 0.25), Effect(0.5, 0.25, 0.75))
    about = {"total": 4, "draws": 2, "prompts": 3, "tokens": 8, "seed": 1}
    return HeadPruning("mini", SHA, Effect(2.5, 2.0, 3.0), rows, free, **about)


def anomalies() -> Anomalies:
    tables = {name: numbers(2, 3) for name in ("gaps", "errors", "effects", "null", "p_values", "shares")}
    tables |= {name: tables[name].abs() / 9 for name in ("errors", "null", "p_values", "shares")}
    about = {"tokens": 300, "left_out": 1, "shuffles": 20, "seed": 3}
    return Anomalies("mini<b>", SHA, ("or<d>er", "all"), (10, 20), ("resid0", "resid1", "resid2"), **tables, **about)


def prompt_probes() -> PromptProbes:
    right = torch.tensor([[[1, -1], [0, 1]], [[1, -1], [1, 1]], [[0, -1], [0, 1]], [[-1, -1]] * 2, [[0, -1], [0, 0]]])
    about = {"vectors": 5, "epochs": 40, "seeds": (0, 1), "left_out": {"longer than <b>": 3}}
    words = {"subjects": ("a <b>", "c"), "attributes": ("x", "y"), "relation_of": torch.tensor([0, 1])}
    return PromptProbes("mini<b>", SHA, ("plays_<b>", ""), (4, 2), right=right, **about, **words)


def coreference_probes() -> CoreferenceProbes:
    shares = {
        "accuracy": numbers(2).abs() / 3,
        "errors": numbers(2).abs() / 90,
        "random": (0.25, 0.5),
        "random_errors": (0.1, 0.1),
    }
    about = {"judged": 40, "trained": 160, "passages": 90, "candidates": 4.5, "left_out": {"of one <b>": 3}, "seeds": (0, 1)}
    beside = {"baselines": {"nearest noun": (0.375, 0.01), "chance": (0.25, 0.01)}}
    return CoreferenceProbes("mini<b>", SHA, "last", 8, 60, ("resid0", "resid1"), **shares, **about, **beside)


def outcomes(layer: int) -> tuple[EditOutcome, EditOutcome]:
    """Two edited facts, of which the second has neither paraphrases nor a text."""
    odds = Odds("<b> is in", " Paris", 0.75, 0.125, 0.25, 0.5)
    kept = Odds("& is in", " Rome", 0.5, 0.125, 0.5, 0.25)
    text = Written(" Paris.\n", " Rome & <b>", (5.0, 4.5), (0.25, 0.5))
    about = ("<b>", " Paris", " Rome", "in_<city>", layer, 0.04, 9, 1.5)
    traced = {"states": 0.25 / (1 + layer), "mlp": -0.125}
    whole = EditOutcome("<b> is in", *about, odds, (odds, kept), (kept,), text, traced)
    return whole, EditOutcome("x is in", *about, kept, (), (odds,), None, traced)


def edit_scores() -> EditScores:
    return EditScores("mini<b>", SHA, (*outcomes(0), *outcomes(2)), (("a <b>", "too long"),), 10, 4096, 3)


def edits_together() -> EditsTogether:
    return EditsTogether("mini", SHA, (0, 1), 2.5, outcomes(1), outcomes(1), 3, (("a <b>", "too long"),))


def weight_edit() -> WeightEdit:
    words = {"prompts": ("<b> is in", "c"), "subjects": ("<b>", "c"), "old": (" Paris", "x"), "new": (" Rome", "y")}
    return WeightEdit("mini", SHA, "MEMIT", (0, 3), **words, keys=numbers(2, 2, 4), changes=numbers(2, 2, 3))


def key_moments() -> KeyMoments:
    return KeyMoments("mini", SHA, 1, "ab" * 32, 300, torch.eye(3).double() + 0.25)
