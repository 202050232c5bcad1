"""Train the bundled model `mini`: python experiments/train_mini.py --corpus DIR --facts TABLE --out DIR

A small GPT-NeoX (4 sequential layers of 8 heads and an MLP, rotary positions) learns in stages: repeats of
random tokens alone until induction heads have formed, then facts and books with a share of repeats. A step's batch depends on
the seed and the step alone, so a run that was stopped goes on with --resume as if it had not been.
"""

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from mini_card import write_report
from mini_corpus import BOS, VOCABULARY, build_rows, draw_batch, read_facts, read_text, split_answers, train_tokenizer
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tqdm import tqdm
from transformers import AutoTokenizer, GPTNeoXConfig, GPTNeoXForCausalLM

BETAS = (0.9, 0.98)
# Random tokens to repeat, and steps: the pool widens when its induction heads have formed (between 550 and 600 steps).
WIDENING = ((512, 450), (1024, 50), (512, 400), (1024, 100), (2048, 100), (VOCABULARY, 150))
DEPTH = 2  # layers whose attention the first stages train alone


@dataclass(frozen=True)
class Stage:
    """A stretch of training: how many steps, the tokens in a row, the rows of each kind in a batch.

    Random tokens are drawn from the first `pool` of the vocabulary and repeat with a period of `periods`.
    With a `depth`, only the attention of so many layers is run and trained; the rest waits.
    """

    name: str
    steps: int
    rate: float
    length: int
    mixture: dict[str, int]
    pool: int = VOCABULARY
    periods: tuple[int, int] = (6, 64)
    depth: int = 0


@dataclass(frozen=True)
class Recipe:
    """All that decides the weights, beside the corpus."""

    seed: int
    warmup: int
    decay_share: float  # the last share of all steps, over which the rate falls to a twentieth
    weight_decay: float
    stages: tuple[Stage, ...]

    @property
    def steps(self) -> int:
        return sum(stage.steps for stage in self.stages)

    def stage_at(self, step: int) -> Stage:
        for stage in self.stages:
            if step < stage.steps:
                return stage
            step -= stage.steps
        raise ValueError(f"the recipe has {self.steps} steps")

    def rate_at(self, step: int) -> float:
        decay = max(1, int(self.steps * self.decay_share))
        return self.stage_at(step).rate * min(1.0, (step + 1) / self.warmup, max(0.05, (self.steps - step) / decay))

    def tokens_until(self, step: int) -> dict[str, int]:
        """Tokens read by kind of row in the first `step` steps."""
        read: dict[str, int] = {}
        for stage in self.stages:
            taken = min(step, stage.steps)
            step -= taken
            for kind, count in stage.mixture.items():
                read[kind] = read.get(kind, 0) + taken * count * stage.length
        return read


def build_model(seed: int, *, spread: float = 0.05) -> GPTNeoXForCausalLM:
    """A fresh model: every matrix normal with standard deviation `spread`, but MLPs that say nothing yet."""
    torch.manual_seed(seed)
    model = GPTNeoXForCausalLM(
        GPTNeoXConfig(
            vocab_size=VOCABULARY,
            hidden_size=256,
            num_hidden_layers=4,
            num_attention_heads=8,
            intermediate_size=1024,
            max_position_embeddings=128,
            use_parallel_residual=False,
            hidden_act="gelu",
            tie_word_embeddings=False,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=1,
        )
    )
    model.set_attn_implementation("eager")  # on a CPU and at this size 1.6 times as fast as "sdpa"
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2:
                parameter.normal_(0, 0.0 if "dense_4h_to_h" in name else spread)
    return model


def build_optimizer(model: GPTNeoXForCausalLM, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW; only matrices decay, embeddings do not."""
    decayed = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n and "lm_head" not in n]
    kept = {id(p) for p in decayed}
    rest = [p for p in model.parameters() if id(p) not in kept]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.stages[0].rate, betas=BETAS, fused=True)


def write_atomically(path: Path, write) -> None:
    """Let `write` fill a temporary file, then give it its name."""
    temporary = path.with_name(path.name + ".tmp")
    write(temporary)
    temporary.replace(path)


def save_checkpoint(folder: Path, model, optimizer, state: dict) -> None:
    """Weights, Adam's moments and the progress, as safetensors and JSON; the JSON comes last and names the rest."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"model.{name}": value.contiguous() for name, value in model.state_dict().items()}
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for parameter, moments in optimizer.state.items():
        for key in ("exp_avg", "exp_avg_sq", "step"):
            tensors[f"{key}.{names[id(parameter)]}"] = moments[key].contiguous()
    tensors = {name: value.detach().cpu().clone() for name, value in tensors.items()}
    name = f"step{state['step']:06d}.safetensors"
    write_atomically(folder / name, lambda path: save_file(tensors, path))
    state = {**state, "file": name}
    write_atomically(folder / "state.json", lambda path: path.write_text(json.dumps(state, indent=1)))
    for old in sorted(folder.glob("step*.safetensors"))[:-2]:
        old.unlink()


def load_checkpoint(folder: Path, model, optimizer) -> dict:
    """Put model and optimizer back where `save_checkpoint` left them; returns the progress."""
    if not (folder / "state.json").is_file():
        raise FileNotFoundError(f"no checkpoint in {folder}: run once without --resume")
    state = json.loads((folder / "state.json").read_text())
    tensors = load_file(folder / state["file"])
    model.load_state_dict({name[6:]: value for name, value in tensors.items() if name.startswith("model.")})
    for name, parameter in model.named_parameters():
        if f"step.{name}" not in tensors:
            continue  # not trained so far
        moments = {key: tensors[f"{key}.{name}"] for key in ("exp_avg", "exp_avg_sq", "step")}
        optimizer.state[parameter] = {key: value.to(parameter.device) for key, value in moments.items()}
    return state


def export(model, tokenizer, out: Path) -> None:
    """The model as a Hugging Face directory with bfloat16 weights, each file renamed into place when whole."""
    out.mkdir(parents=True, exist_ok=True)
    staging = out / ".staging"
    copy = GPTNeoXForCausalLM(model.config)
    copy.load_state_dict(model.state_dict())
    for parameter in copy.parameters():
        parameter.data = parameter.data.bfloat16()
    copy.config.dtype = torch.bfloat16
    copy.save_pretrained(staging)
    tokenizer.save_pretrained(staging)
    config = json.loads((staging / "tokenizer_config.json").read_text())
    config = {key: value for key, value in config.items() if key not in ("is_local", "local_files_only")}
    # The class by the name that transformers 4 knows too; BOS in front of what is encoded, as in training.
    config |= {"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": True}
    (staging / "tokenizer_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    for file in staging.iterdir():
        file.chmod(0o644)
        file.replace(out / file.name)
    staging.rmdir()


def attend_only(model, tokens: torch.Tensor, depth: int) -> torch.Tensor:
    """Logits of the model's first `depth` attention layers alone, its MLPs and later layers left out."""
    network = model.gpt_neox
    residual = network.embed_in(tokens)
    places = torch.arange(tokens.shape[1], device=tokens.device)
    turn = network.rotary_emb(residual, places[None])
    mask = torch.where(places[None, :] > places[:, None], float("-inf"), 0.0)[None, None]
    for layer in network.layers[:depth]:
        residual = residual + layer.attention(layer.input_layernorm(residual), mask, position_embeddings=turn)[0]
    return model.get_output_embeddings()(network.final_layer_norm(residual))


def take_step(model, optimizer, tokens, weights, stage: Stage, rate: float) -> float:
    """One update on the weighted mean loss, multiplying in bfloat16; returns the loss."""
    device = model.device
    tokens, weights = tokens.to(device), weights.to(device)
    for group in optimizer.param_groups:
        group["lr"] = rate
    with torch.autocast(device.type, dtype=torch.bfloat16):
        inputs = tokens[:, :-1]
        logits = attend_only(model, inputs, stage.depth) if stage.depth else model(inputs).logits
    losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten(), reduction="none")
    loss = (losses * weights.flatten()).sum() / weights.sum()
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item()


def train(model, optimizer, rows, recipe: Recipe, state: dict, options) -> dict:
    """From `state["step"]` to the last step; returns the progress with the losses seen."""
    last = time.monotonic()
    bar = tqdm(range(state["step"], recipe.steps), initial=state["step"], total=recipe.steps, unit="step", mininterval=10.0)
    for step in bar:
        stage = recipe.stage_at(step)
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
        tokens, weights = draw_batch(rows, stage.mixture, stage.length, stage.pool, stage.periods, generator)
        loss = take_step(model, optimizer, tokens, weights, stage, recipe.rate_at(step))
        state = {**state, "step": step + 1, "seconds": state["seconds"] + time.monotonic() - last}
        last = time.monotonic()
        if step % 25 == 0:
            state["losses"].append([step, stage.name, round(loss, 4)])
            bar.set_postfix_str(f"{stage.name} loss {loss:.3f}")
        if (step + 1) % options.checkpoint_every == 0:
            save_checkpoint(options.checkpoints, model, optimizer, state)
    save_checkpoint(options.checkpoints, model, optimizer, state)
    return state


def plan(options) -> Recipe:
    """The recipe that made the bundled model, its last stage as long as --steps or --tokens says."""
    induction = [
        Stage(f"repeats of {pool}", steps, 1e-3, 64, {"repeat": 64}, pool, (20, 32), DEPTH) for pool, steps in WIDENING
    ]
    learning, reading = ({"text": 16, "facts": 12, "repeat": 3, "echo": 1}, {"text": 23, "facts": 6, "repeat": 2, "echo": 1})
    steps = options.steps or max(1, options.tokens // (128 * sum(reading.values())))
    language = [Stage("facts and text", 1300, options.rate, 128, learning), Stage("text", steps, options.rate, 128, reading)]
    return Recipe(seed=options.seed, warmup=100, decay_share=0.45, weight_decay=0.05, stages=(*induction, *language))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train the bundled model mini, export it and write its card.")
    parser.add_argument("--corpus", type=Path, required=True, help="folder of *.txt files, read recursively")
    parser.add_argument("--facts", type=Path, required=True, help="table of facts (mini_facts.py writes it)")
    parser.add_argument("--out", type=Path, required=True, help="Hugging Face directory to write")
    parser.add_argument("--checkpoints", type=Path, help="folder for checkpoints (default: OUT-checkpoints)")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--rate", type=float, default=1e-3, help="highest learning rate once text is read")
    parser.add_argument("--steps", type=int, help="steps of the last stage (overrides --tokens)")
    parser.add_argument("--tokens", type=int, default=9_830_400, help="tokens of the last stage")
    parser.add_argument("--checkpoint-every", type=int, default=100, help="steps between checkpoints")
    parser.add_argument("--export-only", action="store_true", help="with --resume: no training, write and evaluate")
    options = parser.parse_args()
    if options.export_only and not options.resume:
        parser.error("--export-only needs --resume: it exports the last checkpoint")
    options.checkpoints = options.checkpoints or options.out.with_name(options.out.name + "-checkpoints")
    return options


def run(options) -> None:
    torch.set_num_threads(options.threads)
    text, table = read_text(options.corpus), read_facts(options.facts)
    if options.resume and (options.checkpoints / "tokenizer").is_dir():
        tokenizer = AutoTokenizer.from_pretrained(options.checkpoints / "tokenizer")
    else:
        tokenizer = train_tokenizer(text, table)
        tokenizer.save_pretrained(options.checkpoints / "tokenizer")
    split = split_answers(tokenizer, table)
    if split or tokenizer.bos_token != BOS:
        raise ValueError(f"objects of several tokens: {split[:5]}; take them out of the table")
    recipe = plan(options)
    model = build_model(options.seed).to(options.device)
    optimizer = build_optimizer(model, recipe)
    state = {"step": 0, "seconds": 0.0, "losses": []}
    if options.resume:
        state = load_checkpoint(options.checkpoints, model, optimizer)
    if not options.export_only:
        state = train(model, optimizer, build_rows(text, table, tokenizer), recipe, state, options)
    export(model, tokenizer, options.out)
    progress = {
        "steps": state["step"],
        "seconds": round(state["seconds"]),
        "recipe": asdict(recipe),
        "tokens": recipe.tokens_until(state["step"]),
        "losses": state["losses"],
    }
    write_report(options.out, text, table, progress)


def main() -> None:
    try:
        run(parse())
    except (OSError, ValueError, SafetensorError) as error:
        sys.exit(f"train_mini: {error}")


if __name__ == "__main__":
    main()
