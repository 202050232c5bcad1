"""SmolLM2-135M-Instruct beside Hugging Face: what it is asked, what it says, and what each head does, by hooks written by hand.

`make real` fetches the model and runs these; without it they are passed over.
"""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from circuits import patch_nodes
from circuits.heads import score_heads
from circuits.lenses.explaining import explain
from circuits.lenses.explaining.local_model import LocalModel
from circuits.models import Edit, Model, load_model
from circuits.probes import activations, probe
from circuits.search import find_induction_circuit
from circuits.tasks import PromptPairs, grammar_sentences
from circuits.tasks.metrics import logit_difference
from circuits.tasks.repeats import repeated_tokens
from experiments import real_model

FOLDER = Path(os.environ.get("CIRCUITS_REAL_MODEL", real_model.FOLDER))
DIRECTORY = FOLDER / real_model.NAME
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not (DIRECTORY / "config.json").is_file(), reason="`make real` fetches the model"),
]
IOI = "When {} and {} went to the store, {} gave a drink to"


@pytest.fixture(scope="module")
def model() -> Model:
    """The converted directory, loaded."""
    return load_model(DIRECTORY)


@pytest.fixture(scope="module")
def hugging_face() -> tuple[Any, Any]:
    """Hugging Face's own model with eager attention, and its tokenizer."""
    return real_model.plain(DIRECTORY)


def test_prompts_are_cut_as_its_tokenizer_cuts_them(model: Model, hugging_face: tuple[Any, Any]) -> None:
    tokenizer = hugging_face[1]
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "Hello"}], tokenize=False)
    for text in (*real_model.prompts(), *real_model.SENTENCES, chat, "In 1987 (and 2024)"):
        assert model.to_tokens(text).ids[0].tolist() == tokenizer(text).input_ids
    assert model.opening() == [] and model.bos_id == tokenizer.bos_token_id
    assert model.to_tokens(chat, prepend_bos=True).ids[0].tolist() == tokenizer(chat).input_ids, "it brings its own BOS"


@pytest.mark.parametrize("bos", [False, True])
def test_probabilities_are_those_of_generate(model: Model, hugging_face: tuple[Any, Any], bos: bool) -> None:
    assert real_model.largest_difference(model, *hugging_face, real_model.prompts(), bos=bos) <= 1e-5


@torch.no_grad()
def test_it_says_what_it_is_known_to_say(model: Model) -> None:
    expected = {" Paris": 0.77, " Mary": 0.92}
    for text, answer in real_model.SENTENCES.items():
        told = model.run(text, keep="logits").logits[0, -1].softmax(-1)
        assert float(told[model.single_token(answer)]) == pytest.approx(expected[answer], abs=0.01)


def test_induction_heads_stand_where_hugging_faces_attention_shows_them(model: Model, hugging_face: tuple[Any, Any]) -> None:
    repeats, length = repeated_tokens(model, count=2, length=25, copies=4)
    ours = score_heads(model, sequences=2, length=25, copies=4).scores["prefix_matching"].double()
    theirs = real_model.prefix_matching(hugging_face[0], repeats, length)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
    strong = (theirs > 0.5).nonzero().tolist()
    assert len(strong) >= 5 and sum(17 <= layer <= 24 for layer, _ in strong) >= len(strong) * 0.7


def test_the_induction_circuit_is_that_of_hugging_faces_attention(model: Model, hugging_face: tuple[Any, Any]) -> None:
    """The heads with most prefix matching, as Hugging Face's attention shows it, are its induction heads; the set is proven."""
    told: list[Any] = []
    found = find_induction_circuit(model, sequences=8, found=told.append)
    repeats, length = repeated_tokens(model, count=4, length=25, copies=4)
    theirs = real_model.prefix_matching(hugging_face[0], repeats, length)
    strong = {f"a{layer}.h{head}" for layer, head in (theirs > 0.6).nonzero().tolist()}
    assert strong and strong <= {str(node) for node, role in found.roles.items() if role == "induction"}
    assert found.metadata["verdict"] == "found" and len(told) == 3
    fed = {str(edge) for edge in found.edges if edge.slot == "k" and edge.writer.kind == "head"}
    assert {"a16.h0->a17.h1<k>", "a16.h0->a18.h2<k>"} <= fed, "the strongest previous-token head feeds the strongest ones"


def head_taken_out(network: Any, ids: Tensor, layer: int, head: int, put: Tensor) -> Tensor:
    """Logits of Hugging Face's model with one head's output before W_O replaced."""
    module = network.model.layers[layer].self_attn
    width = module.head_dim

    def replace(_: Any, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        changed = arguments[0].clone()
        changed[..., head * width : (head + 1) * width] = put
        return (changed, *arguments[1:])

    handle = module.o_proj.register_forward_pre_hook(replace)
    try:
        with torch.no_grad():
            return network(ids).logits
    finally:
        handle.remove()


def test_a_head_set_to_zero_does_what_a_hook_does(model: Model, hugging_face: tuple[Any, Any]) -> None:
    batch = model.to_tokens(IOI.format("Mary", "John", "John"))
    for layer, head in ((3, 0), (17, 4), (29, 8)):
        run = model.run(batch, edits=[Edit(f"a{layer}.h{head}", torch.zeros(model.d_head))])
        theirs = head_taken_out(hugging_face[0], batch.ids, layer, head, torch.zeros(()))
        torch.testing.assert_close(run.logits.log_softmax(-1), theirs.log_softmax(-1), atol=2e-4, rtol=0)


def heads_of(network: Any, ids: Tensor, layer: int) -> Tensor:
    """What the heads of a layer write before W_O, `[prompt position head d_head]`, caught by a hook."""
    module, caught = network.model.layers[layer].self_attn, []
    handle = module.o_proj.register_forward_pre_hook(lambda _, arguments: caught.append(arguments[0].clone()))
    try:
        with torch.no_grad():
            network(ids)
    finally:
        handle.remove()
    return caught[0].unflatten(-1, (-1, module.head_dim))


def test_patching_heads_does_what_hooks_do(model: Model, hugging_face: tuple[Any, Any]) -> None:
    """Denoising: the clean run's head in the corrupt run, as a share of the gap in logit difference."""
    network = hugging_face[0]
    clean, corrupt = IOI.format("Mary", "John", "John"), IOI.format("Mary", "John", "Mary")
    pairs = PromptPairs.from_text(model, clean=[clean], corrupt=[corrupt], answers=[" Mary"], distractors=[" John"])
    answer, distractor = int(pairs.answers[0]), int(pairs.distractors[0])

    def difference(logits: Tensor) -> float:
        return float(logits[0, -1, answer] - logits[0, -1, distractor])

    with torch.no_grad():
        ends = [difference(network(batch.ids).logits) for batch in (pairs.clean, pairs.corrupt)]
    places = [(9, 3), (17, 4), (19, 0), (24, 8)]
    expected = []
    for layer, head in places:
        put = heads_of(network, pairs.clean.ids, layer)[..., head, :]
        patched = difference(head_taken_out(network, pairs.corrupt.ids, layer, head, put))
        expected.append((patched - ends[1]) / (ends[0] - ends[1]))
    effects = patch_nodes(model, pairs, logit_difference, [f"a{layer}.h{head}" for layer, head in places])
    torch.testing.assert_close(effects.effect().float(), torch.tensor(expected), atol=2e-4, rtol=0)


def test_activations_of_words_are_hugging_face_s_hidden_states(model: Model, hugging_face: tuple[Any, Any]) -> None:
    sentences, (plain, _) = grammar_sentences(12), hugging_face
    with activations(model, sentences) as read:
        found = {name: read.of(name) for name in read.names}
        for row, (number, word) in list(enumerate(read.text.places))[::9]:
            one = read.text.aligned[number]
            with torch.no_grad():
                hidden = plain(torch.tensor([one.ids]), output_hidden_states=True).hidden_states
            last = max(column for column, owner in enumerate(one.owners) if owner == word)
            for layer in (0, 1, model.n_layers - 1):
                near = {"rtol": 1e-3, "atol": 1e-3 * float(hidden[layer].abs().max())}
                torch.testing.assert_close(found[f"resid{layer}"][row], hidden[layer][0, last], **near)


def test_it_explains_neurons_of_another_model_and_simulates_them_by_words(model: Model) -> None:
    name = f"model:{DIRECTORY}"
    found = explain(load_model("mini"), "m3.n457", top=2, explainer=name)
    assert found.explanation and (found.explainer, found.simulator) == (name, name) and not found.unanswered
    assert len(found.held) == 2 and all(0 <= value <= 10 for one in found.simulated for value in one)
    text = "In 1999 there were 25 houses in the village and 3 of them were old"
    tokens = model.to_token_strings(model.to_tokens(text).ids[0])
    told = torch.tensor(LocalModel(model).simulate("numbers", tokens))
    digits = torch.tensor([float(any(map(str.isdigit, token))) for token in tokens])
    assert float(torch.corrcoef(torch.stack([told, digits]))[0, 1]) > 0.4, "where the words hold it expects more"


def test_parts_of_speech_are_read_off_a_later_layer_better_than_off_words_and_random_weights(model: Model) -> None:
    found = probe(model, grammar_sentences(260), sites=["resid0", "resid8"], seeds=1, hidden=0)
    assert found.interval(1)[0] > found.interval(0)[1], "the intervals do not touch"
    assert found.interval(1)[0] > found.random[1] + 2 * found.random_errors[1]
