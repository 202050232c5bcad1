"""Causal tracing and knockout against the Hugging Face model with hooks, as ROME's own code runs it."""

import gc
from pathlib import Path

import pytest
import torch
from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module
from transformers import GPT2Config, GPT2LMHeadModel

from circuits.errors import FileFormatError, PromptError
from circuits.models import Model
from circuits.patching import Knockout, Trace, Traces, attention_knockout, causal_trace, noise_level
from circuits.patching.engine.base import Base
from circuits.patching.tracing.causal import KINDS, SEVERED, Cells
from circuits.tasks import mini_facts
from experiments.benchmarks.patching_work import RomeLoop, Tracing
from tests.models import bundled
from tests.nursery import run_code


@pytest.fixture(scope="module")
def mini() -> Model:
    return bundled.mini()


@pytest.fixture(scope="module")
def trace(mini: Model) -> Trace:
    fact = mini_facts(relation="country_capital")[3]
    return causal_trace(mini, fact.prompt, subject=fact.subject, kinds=(*KINDS, *SEVERED), draws=3, window=2)


def tiny(dtype: torch.dtype):
    """A random GPT-2 of twelve narrow layers, as the Hugging Face model and as ours."""
    torch.manual_seed(3)
    shape = GPT2Config(n_layer=12, n_embd=32, n_head=4, vocab_size=50, n_positions=32, initializer_range=0.15)
    original = GPT2LMHeadModel(shape).eval()
    copy = GPT2LMHeadModel(shape).eval()
    copy.load_state_dict(original.state_dict())
    for module in (original, copy):
        torch.nn.Module.to(module, dtype)
    return original, Model.from_bridge(build_bridge_from_module(copy, "GPT2LMHeadModel", hf_config=copy.config))


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("kind", KINDS)
def test_every_cell_equals_romes_loop(kind, dtype: torch.dtype, bound: float) -> None:
    original, model = tiny(dtype)
    with torch.no_grad():
        tracing = Tracing.of(model, tokens=9, draws=3)
        loop, found = RomeLoop(original, tracing), tracing.ours(kind)
        for index, row in enumerate(found):
            slow = loop.cell(kind, index // model.n_layers, index % model.n_layers)
            assert float((row - slow).abs().max()) <= bound


@pytest.mark.parametrize("module", ["mlp", "attention"])
def test_severed_states_equal_a_forward_with_that_module_held(module) -> None:
    original, model = tiny(torch.float64)
    with torch.no_grad():
        tracing = Tracing.of(model, tokens=9, draws=2)
        sweep = tracing.sweep()
        cells = Cells(Base(model, tracing.clean), sweep.base, 4, 10)
        places = [(5, 2), (7, 0), (8, 9), (6, 11)]
        found = sweep.evaluate([cells.variant(f"states_severed_{module}", *place) for place in places])
        for (token, layer), row in zip(places, found, strict=True):
            assert float((row - severed(original, tracing, module, token, layer)).abs().max()) <= 1e-10


def severed(original, tracing: Tracing, module: str, token: int, layer: int) -> torch.Tensor:
    """ROME's severed run: the state restored, the module's later outputs at that token as in the corrupted run."""
    loop, held = RomeLoop(original, tracing), Base(tracing.model, tracing.corrupted)
    blocks = original.transformer.h
    handles = [original.transformer.drop.register_forward_hook(loop._corrupt)]
    handles.append(blocks[layer].register_forward_hook(loop._restore(loop.values["states"][layer], token)))
    for later in range(layer + 1, len(blocks)):
        value = getattr(held, module)(later)

        def hold(part, inputs, output, value=value):
            tensor = (output[0] if isinstance(output, tuple) else output).clone()
            tensor[1:, token] = value[:, token]
            return (tensor, *output[1:]) if isinstance(output, tuple) else tensor

        handles.append((blocks[later].mlp if module == "mlp" else blocks[later].attn).register_forward_hook(hold))
    ids = tracing.ids.expand(1 + len(tracing.corrupted.tokens), -1)
    logits = original(ids, use_cache=False).logits
    for handle in handles:
        handle.remove()
    return logits[1:, -1].double().softmax(dim=-1)[:, tracing.answer]


def test_a_trace_says_what_was_done(mini: Model, trace: Trace) -> None:
    assert trace.answer.strip() == "Baku" and trace.clean > 0.9
    assert set(trace.restored) == {*KINDS, *SEVERED}
    assert all(values.shape == (9, 4, 3) for values in trace.restored.values())
    assert trace.noise == pytest.approx(noise_level(mini))
    states = trace.effects("states")
    assert float(states[0].abs().max()) == 0.0, "tokens before the subject cannot matter"
    assert float(states[-1, -1]) == pytest.approx(trace.total_effect, abs=1e-5), "the last state restores everything"
    assert trace.roles()[trace.subject[1]] == "last subject token"
    frame = trace.to_dataframe()
    assert len(frame) == 5 * 9 * 4 and frame["indirect_effect"].min() < 0.01


def test_the_same_seed_gives_the_same_draws(mini: Model, trace: Trace) -> None:
    options = {"subject": "Azerbaijan", "draws": 3, "window": 2, "kinds": ("states",)}
    again = causal_trace(mini, trace.prompt, **options)
    other = causal_trace(mini, trace.prompt, seed=1, **options)
    assert torch.equal(again.restored["states"], trace.restored["states"])
    assert not torch.equal(other.corrupted, trace.corrupted)


def test_nothing_of_a_trace_stays_behind(mini: Model) -> None:
    gc.collect()
    before = sum(type(thing) is Cells for thing in gc.get_objects())
    causal_trace(mini, "The capital of Japan is", subject="Japan", draws=1, kinds=("states",))
    gc.collect()
    assert sum(type(thing) is Cells for thing in gc.get_objects()) == before


def test_a_subject_can_be_replaced() -> None:
    mini = bundled.mini(torch.float64)
    found = causal_trace(mini, "The capital of Japan is", subject="Japan", replacement="France", kinds=("states",))
    assert found.noise == 0.0 and len(found.corrupted) == 1
    assert float(found.effects("states")[-1, -1]) == pytest.approx(found.total_effect, abs=1e-10)
    with pytest.raises(PromptError, match="equally many"):
        causal_trace(mini, "The capital of Japan is", subject="Japan", replacement="the United States")
    with pytest.raises(PromptError, match="is not in it"):
        causal_trace(mini, "The capital of Japan is", subject="Peru")


def test_traces_are_averaged_by_role_and_reopened(trace: Trace, tmp_path) -> None:
    both = Traces((trace, trace), (("a prompt", "a reason"),))
    mean, half = both.average_total_effect()
    assert mean == pytest.approx(trace.total_effect) and half == 0.0
    averages = both.average_by_role("states")
    assert averages["last token"][2] == 2
    assert torch.equal(averages["last token"][0], trace.by_role("states")["last token"])
    trace.save(tmp_path / "trace.json")
    both.save(tmp_path / "traces.json")
    assert torch.equal(Trace.load(tmp_path / "trace.json").restored["mlp"], trace.restored["mlp"])
    assert Traces.load(tmp_path / "traces.json").to_dataframe().equals(both.to_dataframe())
    with pytest.raises(FileFormatError, match="not a file of format"):
        Trace.load(tmp_path / "traces.json")
    (tmp_path / "bad.json").write_text((tmp_path / "trace.json").read_text().replace('"window"', '"wind"'))
    with pytest.raises(FileFormatError, match="must hold exactly"):
        Trace.load(tmp_path / "bad.json")


def test_knockout_blocks_what_the_answer_needs(mini: Model, tmp_path) -> None:
    found = attention_knockout(mini, "Azerbaijan has its capital at", subject="Azerbaijan", window=2)
    assert found.answer.strip() == "Baku"
    assert float(found.change("subject").min()) < -0.5
    assert float(found.change("subject")[-1]) > -0.1
    found.save(tmp_path / "knockout.json")
    assert Knockout.load(tmp_path / "knockout.json").to_dataframe().equals(found.to_dataframe())
    with pytest.raises(PromptError, match="cannot block nothing"):
        attention_knockout(mini, "Azerbaijan has its capital at", subject="Azerbaijan", window=0)


def test_memory_stays_within_the_budget(tmp_path: Path) -> None:
    """Many neurons of a layer, in a process of its own: the peak above what was held before stays within the budget."""
    code = """
import resource, torch, circuits
from circuits.patching import patch_nodes
from circuits.tasks import induction, metrics
model = circuits.load_model("mini")
pairs = induction(model, 16)
names = [f"m1.n{neuron}" for neuron in range(250)]
patch_nodes(model, pairs, metrics.logit_difference, names[:8], budget=2**20 * 8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
patch_nodes(model, pairs, metrics.logit_difference, names, budget=2**20 * 64)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    assert int(run_code(code, tmp_path)) / 1024 <= 64
