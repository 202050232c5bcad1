"""Activations of words, streamed to disk: read once, probed many times."""

import contextlib
import dataclasses
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.errors import CircuitsError, FileFormatError, MemoryBudgetError, PromptError
from circuits.files.reading import read_document
from circuits.files.staging import staging
from circuits.files.writing import write_whole
from circuits.models import Model
from circuits.models.memory import BUDGET, beside_budget
from circuits.probes.reading import Pooling, WordBatch, WordText, layer_by_layer, require_finite
from circuits.probes.sites import PREFIXES, ActivationSite, SiteKind, layers_of, parse_site, sites_of, width_of
from circuits.progress import Progress, silent
from circuits.tasks.sources.conllu import Sentence

FORMAT = "circuits-activations"
ABOUT = "activations.json"


@dataclasses.dataclass(frozen=True, eq=False)
class Activations:
    """What a model has at some places for every word of a text. `of` reads one place; all else stays on disk."""

    model: Model = dataclasses.field(repr=False)
    text: WordText = dataclasses.field(repr=False)
    pooling: Pooling
    sites: tuple[ActivationSite, ...]
    folders: dict[SiteKind, Path] = dataclasses.field(repr=False)
    """Where the shards of each family lie."""

    def __len__(self) -> int:
        return len(self.text.places)

    @property
    def names(self) -> tuple[str, ...]:
        """The places, by name."""
        return tuple(site.name for site in self.sites)

    def of(self, name: str) -> Float[Tensor, "word width"]:
        """The vector of every word at a place, on the CPU, in float32 or wider. Raises GraphError for a place that the model
        lacks, CircuitsError for one of a family that was not asked for, FileFormatError where shards are damaged or gone."""
        site = parse_site(self.model, name)
        if site.family not in self.folders:
            raise CircuitsError(f"{name} was not read: these activations hold {', '.join(self.folders)}")
        found = read_shards(self.folders[site.family], site.stored, len(self))
        found = found.to(torch.promote_types(found.dtype, torch.float32))
        if site.head is None:
            return found
        width = width_of(self.model, site.family) // self.model.n_heads
        return found[:, site.head * width : (site.head + 1) * width].contiguous()

    @property
    def nbytes(self) -> int:
        """Bytes on disk."""
        return sum(file.stat().st_size for folder in self.folders.values() for file in folder.iterdir())


@contextlib.contextmanager
def activations(
    model: Model,
    sentences: Sequence[Sentence] | WordText,
    *,
    sites: str | Sequence[str] = "residual",
    pooling: Pooling = "last",
    words: int | None = None,
    folder: str | Path | None = None,
    budget: int = BUDGET,
    progress: Progress | None = None,
) -> Iterator[Activations]:
    """What the model has for each word of the sentences, in a `with` block: read in one forward pass that unembeds nothing and
    holds one layer at a time, written to disk in shards.

    With `folder` the shards stay, and later calls for the same weights, text, pooling and family of places read nothing again;
    they appear whole or not at all, by one writer at a time. Without it they go when the block ends. Each word with a token of
    its own has a vector; of several tokens its last one stands for it, or (`pooling="mean"`) their mean.

    Raises PromptError where no sentence can be used, ModelError without a fast tokenizer, GraphError for places that the model
    lacks, NonFiniteError for activations that are none, MemoryBudgetError where one sentence does not fit, FileFormatError
    where nothing can be written.

    Args:
        model: what is read.
        sentences: what it reads (`circuits.tasks.read_conllu`), or a text that is aligned already.
        sites: places by name (resid3, mid3, a3, a3.h1, p3, m3), or all of a family: residual, middle, heads, patterns (of each
            head its weight on the first token and on the 16 tokens up to the word's), neurons.
        pooling: what stands for a word of several tokens, "last" or "mean".
        words: read sentences until there are so many words (default: all).
        folder: where the shards are kept.
        budget: bytes that the run and a shard may take, besides the model.
        progress: hears what is being done, how much of it is done, and how much there is.
    """
    if pooling not in get_args(Pooling):
        raise PromptError(f"pooling={pooling!r}: expected last or mean")
    model.require_finite()
    places = sites_of(model, sites)
    text = sentences if isinstance(sentences, WordText) else WordText.of(model, sentences, words=words)
    with contextlib.ExitStack() as stack:
        base = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="circuits-")) if folder is None else folder)
        folders: dict[SiteKind, Path] = {}
        families: list[SiteKind] = [site.family for site in places]
        for family in dict.fromkeys(families):
            folders[family] = _kept(model, text, family, pooling, base, budget, progress or silent)
        yield Activations(model, text, pooling, tuple(places), folders)


def _kept(
    model: Model, text: WordText, family: SiteKind, pooling: Pooling, base: Path, budget: int, progress: Progress
) -> Path:
    """The folder with a family's shards, which are written where they are not there yet."""
    about = {
        "weights_sha256": model.fingerprint,
        "text_sha256": text.sha256,
        "family": family,
        "pooling": pooling,
        "dtype": str(model.dtype).removeprefix("torch."),
        "words": len(text.places),
    }
    key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
    name = f"{family}-{key}"
    if _is_whole(base / name, about):
        return base / name
    with staging(base, names=[name], who=f"activations of {model.name}") as hidden:
        if _is_whole(base / name, about):  # another process has written it since
            return base / name
        written = hidden / name
        written.mkdir()
        shards = _write(model, text, family, pooling, written, budget, progress)
        document = {"format": FORMAT, "version": 1, **about, "model": model.name, "shards": shards}
        write_whole(written / ABOUT, json.dumps(document, indent=1).encode())
        shutil.rmtree(base / name, ignore_errors=True)  # damaged: the words that it lacks are all there now
        try:
            written.rename(base / name)
        except OSError as error:
            raise FileFormatError(f"{base / name}: cannot be written: {error.strerror}") from None
    return base / name


def _is_whole(folder: Path, about: dict[str, Any]) -> bool:
    """Whether a folder holds what is asked for, with all of its shards."""
    try:
        found = read_document(folder / ABOUT, FORMAT)
    except FileFormatError:
        return False
    shards = found.get("shards")
    there = isinstance(shards, int) and all((folder / shard_name(number)).is_file() for number in range(shards))
    return there and all(found.get(name) == value for name, value in about.items())


def shard_name(number: int) -> str:
    """The file of a shard."""
    return f"shard-{number:05d}.safetensors"


def _write(
    model: Model, text: WordText, family: SiteKind, pooling: Pooling, folder: Path, budget: int, progress: Progress
) -> int:
    """Read the text, write the shards; gives their number."""
    from safetensors.torch import save_file

    size = model.weights.W_E.element_size()
    kept = size * width_of(model, family) * len(layers_of(model, family))
    longest = max(len(one.ids) for one in text.aligned)
    held = size * (8 * model.d_model + 4 * model.d_mlp + model.n_heads * (8 * model.d_head + 3 * longest))
    # A shard is there twice while it is written, as tensors and as the bytes of the file.
    most = budget // (2 * kept + held)
    if most < longest:
        raise MemoryBudgetError(
            f"the {family} activations of one sentence of {longest} tokens need about "
            f"{beside_budget(longest * (2 * kept + held), budget)}: leave out long sentences or give a larger budget"
        )
    done, shards, total = 0, 0, len(text.places)
    for shards, numbers in enumerate(text.batches(min(most, _MOST)), 1):
        batch = WordBatch.of(text, numbers, model.device)
        arrays = {"words": batch.words}
        for layer, x in layer_by_layer(model, batch.tokens, family):
            name = f"{PREFIXES[family]}{layer}"
            arrays[name] = require_finite(batch.pooled(x, pooling).cpu(), name)
        save_file(arrays, folder / shard_name(shards - 1))
        done += len(batch.words)
        progress("reading words", done, total)
    return shards


_MOST = 4096
"""Tokens of a batch: more make nothing quicker."""


def read_shards(folder: Path, name: str, count: int) -> Float[Tensor, "word width"]:
    """One array of all shards in a folder, in the order of the words. Raises FileFormatError where they are not all there."""
    from safetensors import SafetensorError, safe_open

    found: Tensor | None = None
    there = 0
    for path in sorted(folder.glob("shard-*.safetensors")):
        try:
            with safe_open(path, framework="pt") as file:
                words, values = file.get_tensor("words"), file.get_tensor(name)
        except (OSError, SafetensorError) as error:
            raise FileFormatError(f"{path}: cannot be read: {' '.join(str(error).split())[:150]}") from None
        found = values.new_empty(count, values.shape[1]) if found is None else found
        found[words] = values
        there += len(words)
    if found is None or there != count:
        raise FileFormatError(f"{folder}: holds {there:,} words, expected {count:,}: remove it, and it is read anew")
    return found
