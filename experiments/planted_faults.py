"""Plant faults in a copy of the package, one at a time, and run the test that each must turn red.

    python experiments/planted_faults.py                   all of them (four and a half minutes on a busy core)
    python experiments/planted_faults.py --only rotary     those with a word in their name
    python experiments/planted_faults.py --list            what there is, without running anything

A fault is one small edit of the source, which must fit exactly once. A test that stays green where a fault is planted does not
test what it says: the exit status is then 1. Each fault runs in a process forked from one that has loaded the libraries, with
the copy in place of the package.
"""

import argparse
import contextlib
import dataclasses
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FORWARD = "tests/models/test_brute_force.py::test_models_built_by_hand_equal_the_reference"
ENGINE = "tests/patching/test_engine.py::test_patched_runs_equal_brute_force"
NODES = "tests/patching/test_sweeps.py::test_every_node_equals_its_own_edited_run"
EDGES = "tests/patching/test_exact_edges.py::test_an_edge_equals_the_reference"
PATHS = "tests/patching/test_exact_edges.py::test_a_path_equals_the_four_runs_of_ioi"
EAP = "tests/attribution/test_edges.py::test_eap_equals_the_gradient_by_every_reader"
EAP_IG = "tests/attribution/test_edges.py::test_integrated_gradients_average_the_points_between"
NEURONS = "tests/attribution/test_neurons.py::test_blocks_equal_the_gradient_by_every_neuron"
LARGEST = "tests/attribution/test_neurons.py::test_the_streamed_largest_are_the_dense_selection"
NODE_SCORES = "tests/attribution/test_nodes.py::test_a_node_is_worth_what_all_its_edges_are"
ADD_UP = "tests/attribution/test_scores.py::test_integrated_gradients_are_complete_on_random_models"
ACDC = "tests/search/test_acdc.py::test_the_circuit_of_one_run_an_edge"
POSITIONS = "tests/patching/test_sweeps.py::test_positions_roles_and_groups"


@dataclasses.dataclass(frozen=True)
class Fault:
    """A fault, and the test that must see it."""

    name: str
    file: str
    """Below `circuits/`."""
    right: str
    wrong: str
    test: str


_REWRITTEN = "pytest.PytestAssertRewriteWarning"
"""That libraries were loaded before pytest could look at them."""
LAYERS, FORWARDS, GEOMETRY = "models/layers.py", "models/forward.py", "models/geometry.py"
PASS, MIXING, READING = "patching/engine/variant_pass.py", "patching/engine/mixing.py", "patching/engine/reading.py"
ONE_NEURON, DIRECTIONS = "patching/engine/variant_mlp.py", "patching/engine/directions.py"
SITES, GRADIENTS, BLOCKS = "patching/engine/sites.py", "attribution/gradients.py", "attribution/blocks.py"
DECIDING = "search/acdc/deciding.py"
FAULTS = (
    Fault(
        "queries and keys swapped",
        LAYERS,
        "(x.transpose(1, 2) for x in (q, k, v))",
        "(x.transpose(1, 2) for x in (k, q, v))",
        FORWARD,
    ),
    Fault(
        "scores not scaled",
        LAYERS,
        "is_causal=bias is None, scale=attention.scale)",
        "is_causal=bias is None, scale=1.0)",
        FORWARD,
    ),
    Fault(
        "one token ahead seen",
        LAYERS,
        ".triu(1)",
        ".triu(2)",
        "tests/models/test_brute_force.py::test_models_built_by_hand_equal_the_reference",
    ),
    Fault(
        "norm after attention dropped",
        LAYERS,
        "attention.W_O, attention.b_O), post)",
        "attention.W_O, attention.b_O), None)",
        FORWARD,
    ),
    Fault(
        "bias of the MLP's output dropped",
        LAYERS,
        "linear(neurons, mlp.W_out, mlp.b_out)",
        "linear(neurons, mlp.W_out, None)",
        FORWARD,
    ),
    Fault(
        "gate and linear part swapped",
        LAYERS,
        "activate_(linear(x, mlp.W_gate, mlp.b_gate), mlp.activation).mul_(linear(x, mlp.W_in, mlp.b_in))",
        "activate_(linear(x, mlp.W_in, mlp.b_in), mlp.activation).mul_(linear(x, mlp.W_gate, mlp.b_gate))",
        FORWARD,
    ),
    Fault("bias of a norm dropped", LAYERS, "norm.weight, norm.bias, norm.eps)", "norm.weight, None, norm.eps)", FORWARD),
    Fault(
        "gain of a norm dropped",
        LAYERS,
        "(wide if norm.weight is None else wide.mul_(norm.weight)).to(x.dtype)",
        "wide.to(x.dtype)",
        FORWARD,
    ),
    Fault(
        "pads counted as positions",
        LAYERS,
        "x + weights.W_pos[tokens.positions]",
        "x + weights.W_pos[: tokens.ids.shape[1]]",
        FORWARD,
    ),
    Fault(
        "bias of the logits dropped",
        LAYERS,
        "flat @ weights.W_U if weights.b_U is None else torch.addmm(weights.b_U, flat, weights.W_U)",
        "flat @ weights.W_U",
        FORWARD,
    ),
    Fault(
        "groups of keys in the wrong order",
        LAYERS,
        "k, v = k.repeat_interleave(groups, dim=2), v.repeat_interleave(groups, dim=2)",
        "k, v = k.repeat(1, 1, groups, 1), v.repeat(1, 1, groups, 1)",
        FORWARD,
    ),
    Fault(
        "rotary positions left off keys", LAYERS, 'rotation is None or slot == "v"', 'rotation is None or slot != "q"', FORWARD
    ),
    Fault("rotary positions turned backwards", GEOMETRY, ".sub_(second * sin", ".add_(second * sin", FORWARD),
    Fault("a window one too wide", GEOMETRY, "(ahead.abs() < window)", "(ahead.abs() <= window)", FORWARD),
    Fault("a parallel MLP reads behind attention", FORWARDS, "before if weights.parallel else middle", "middle", FORWARD),
    Fault(
        "a head's change through another head's weights", PASS, "(new - own) @ W_O[head]", "(new - own) @ W_O[head - 1]", ENGINE
    ),
    Fault("a head's change subtracted", PASS, "outputs[row] += (new - own)", "outputs[row] -= (new - own)", ENGINE),
    Fault(
        "a head alone past the norm behind attention",
        PASS,
        'if first.kind == "head" and block.attention_post_norm is None:',
        'if first.kind == "head":',
        ENGINE,
    ),
    Fault("what a reader reads taken away", PASS, "slot, read + value, columns", "slot, read - value, columns", ENGINE),
    Fault(
        "one head's weights for all",
        PASS,
        "slice(index * attention.d_head, (index + 1) * attention.d_head)",
        "slice(0, attention.d_head)",
        ENGINE,
    ),
    Fault("bias of one head dropped", PASS, "linear(x, W, None if bias is None else bias[own])", "linear(x, W, None)", ENGINE),
    Fault(
        "a pattern on another group's values",
        MIXING,
        "(change.index or 0) // groups]",
        "(change.index or 0) % v.shape[3]]",
        ENGINE,
    ),
    Fault(
        "every head knocked out",
        MIXING,
        "slice(None) if change.index is None else slice(change.index, change.index + 1)",
        "slice(None)",
        ENGINE,
    ),
    Fault("knocked out at all positions", MIXING, "change.value & change.mask[..., None]", "change.value", ENGINE),
    Fault(
        "one neuron's bias dropped", ONE_NEURON, "b_in=None if mlp.b_in is None else mlp.b_in[index, None]", "b_in=None", ENGINE
    ),
    Fault(
        "bias of the answers' logits dropped",
        READING,
        "logits if weights.b_U is None else logits + weights.b_U[self.tokens][None, :, None]",
        "logits",
        NODES,
    ),
    Fault(
        "answers read before the last norm",
        READING,
        "        normed = normalise(x, weights.final_norm)\n        logits = torch.einsum",
        "        normed = x\n        logits = torch.einsum",
        NODES,
    ),
    Fault("the wrong position", SITES, "== columns[:, None])", "== columns[:, None] + 1)", POSITIONS),
    Fault(
        "a path's change with the wrong sign",
        DIRECTIONS,
        "node_output(other.run, writer) - node_output(own.run, writer)",
        "node_output(own.run, writer) - node_output(other.run, writer)",
        EDGES,
    ),
    Fault(
        "an MLP of the writer's own layer passed over",
        DIRECTIONS,
        '(writer.layer or 0) + int(parallel or writer.kind != "head")',
        "(writer.layer or 0) + 1",
        PATHS,
    ),
    Fault(
        "gradients by gate and linear part swapped",
        GRADIENTS,
        "return slope * activate(driver, mlp.activation), slope * pre[0] * rise",
        "return slope * pre[0] * rise, slope * activate(driver, mlp.activation)",
        NEURONS,
    ),
    Fault("a norm that is not centred", GRADIENTS, "return centred / scale, scale", "return x / scale, scale", EAP),
    Fault("the norm's part with the wrong sign", BLOCKS, ".div_(-unit.shape[2])", ".div_(unit.shape[2])", NEURONS),
    Fault("points at the beginnings of parts", "attribution/points.py", "(step + 0.5) / steps", "step / steps", EAP_IG),
    Fault(
        "points weighed by one",
        "attribution/points.py",
        "(step + 0.5) / steps, 1 / steps)",
        "(step + 0.5) / steps, 1.0)",
        ADD_UP,
    ),
    Fault(
        "a node's change with the wrong sign",
        "attribution/nodes.py",
        "other.z[layer] - own.z[layer], found.z[layer]",
        "own.z[layer] - other.z[layer], found.z[layer]",
        NODE_SCORES,
    ),
    Fault(
        "of equal scores the later edge",
        "attribution/topk.py",
        "codes, order = codes.sort()",
        "codes, order = codes.sort(descending=True)",
        LARGEST,
    ),
    Fault(
        "gradients flow through a held scale",
        "attribution/relevance.py",
        "norm_scale(x, norm).detach()",
        "norm_scale(x, norm)",
        "tests/attribution/test_nodes.py",
    ),
    Fault("costs from the beginning on", DECIDING, "(state.loss if base < 0 else losses[base])", "state.loss", ACDC),
    Fault(
        "writers from the earliest on",
        DECIDING,
        "list(range(self.state.ground.before[self.place]))[::-1]",
        "list(range(self.state.ground.before[self.place]))",
        ACDC,
    ),
    Fault(
        "the gap with the wrong sign",
        "attribution/completeness.py",
        "(corrupt.double() - clean.double()).mean()",
        "(clean.double() - corrupt.double()).mean()",
        "tests/attribution/test_scores.py::test_scores_say_how_far_they_are_from_adding_up",
    ),
)


def main(words: Sequence[str] | None = None) -> int:
    """Plant, run, tell; 1 where a test stays green."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="faults with this word in their name, file or test")
    parser.add_argument("--list", action="store_true", help="what there is")
    parser.add_argument("--seconds", type=int, default=120, help="for each test at most")
    asked = parser.parse_args(words)
    chosen = [one for one in FAULTS if asked.only in f"{one.name} {one.file} {one.test}"]
    for one in FAULTS:
        fitted(one, (ROOT / "circuits" / one.file).read_text(encoding="utf-8"))
    if asked.list:
        print(*(f"{one.name} (circuits/{one.file}): {one.test}" for one in chosen), sep="\n")
        return 0
    import pytest
    import torch
    import transformer_lens  # noqa: F401 - loaded once for all

    torch.set_num_threads(1)
    assert pytest
    ends: dict[str, int] = {}
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "tree"
        for name in ("circuits", "tests", "experiments"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        for one in chosen:
            before = time.monotonic()
            end = planted(one, copy, asked.seconds)
            ends[end] = ends.get(end, 0) + 1
            print(f"{end:6} {time.monotonic() - before:5.1f} s  {one.name} (circuits/{one.file}): {one.test}", flush=True)
    told = ", ".join(f"{count} {end}" for end, count in sorted(ends.items()))
    print(f"{len(chosen)} faults: {told}; {time.monotonic() - begun:.0f} s")
    return int(set(ends) != {"red"})


def fitted(fault: Fault, text: str) -> str:
    """The source with the fault. Raises ValueError where it does not fit exactly once."""
    if text.count(fault.right) != 1:
        raise ValueError(f"{fault.name}: {fault.file} holds {text.count(fault.right)} times {fault.right!r}, expected once")
    return text.replace(fault.right, fault.wrong)


def planted(fault: Fault, copy: Path, seconds: int) -> str:
    """How the test ends where the fault is planted: "red", "green", "broken" (it could not be run) or "slow"."""
    file = copy / "circuits" / fault.file
    right = file.read_text(encoding="utf-8")
    file.write_text(fitted(fault, right), encoding="utf-8")
    try:
        child = os.fork()
        if child == 0:
            end = 3
            try:
                end = tested(fault.test, copy)
            finally:
                os._exit(end)
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return {0: "green", 1: "red"}.get(os.waitstatus_to_exitcode(status), "broken")
            time.sleep(0.05)
        os.kill(child, 9)
        os.waitpid(child, 0)
        return "slow"
    finally:
        file.write_text(right, encoding="utf-8")


def tested(test: str, copy: Path) -> int:
    """Run a test of the copy, in a process of its own; pytest's exit status."""
    import pytest

    sys.dont_write_bytecode = True
    os.chdir(copy)
    sys.path[:0] = [str(copy)]
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        import circuits

        if not str(circuits.__file__).startswith(str(copy)):
            return 3
        return int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "--no-header", "-W", f"ignore::{_REWRITTEN}", test]))


if __name__ == "__main__":
    sys.exit(main())
