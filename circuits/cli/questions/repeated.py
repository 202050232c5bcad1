"""What `circuits discover --seeds` asks: the same search time and again."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import circuits
from circuits.cli.prompts import Behaviour
from circuits.cli.questions.discover import Search
from circuits.cli.settings import Setting, Work
from circuits.errors import CircuitsError, PromptError

if TYPE_CHECKING:
    from circuits.search import Recurrence

FILES = {
    "stability.json": "all circuits, edge by edge; circuits discover --open shows it again",
    "overlaps.csv": "how far the circuits meet, beside chance",
    "returning.csv": "every edge and how often it was found",
    "judged.csv": "what each circuit keeps by itself on held-out prompts",
    "consensus.json": "the circuit of the edges in at least half; circuits.Circuit.load reads it",
    "stability.png": "overlaps, how often edges return, and what circuits keep",
    "consensus.png": "the circuit of the edges in at least half, drawn by layer",
    "prompts.json": "how the model does on each prompt; circuits.PromptReport.load reads it",
}
"""What `circuits discover --seeds` writes, and what for."""
OPTIONS = ("--sample", "--against")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Repeated:
    """How often, on which prompts, and in which other models."""

    seeds: int | None
    sample: str | None
    against: tuple[str, ...]

    def check(self) -> None:
        """Raise CircuitsError where options are wrong, or there is no `--seeds` for them; needs no model."""
        from circuits.search.stability.samples import LEAST, check_sample

        if self.seeds is None:
            given = [name for name, there in zip(OPTIONS, (self.sample, self.against), strict=True) if there]
            if given:
                raise CircuitsError(f"{given[0]} goes with --seeds, which says how often to search")
            return
        if self.seeds < LEAST:
            raise CircuitsError(f"--seeds is {self.seeds}: it takes {LEAST} or more to say how sure an overlap is")
        check_sample(self.sample or "halves", self.seeds)

    def check_count(self, count: int | None) -> None:
        """Raise PromptError for fewer pairs than give every seed one of its own, half of them being held out."""
        if self.sample == "parts" and count is not None and self.seeds is not None and (count + 1) // 2 < self.seeds:
            least = 2 * self.seeds - 1
            raise PromptError(f"--count is {count}: half of them make no {self.seeds} parts; give {least} or more")


def run(repeated: Repeated, search: Search, asked: Behaviour, setting: Setting) -> None:
    """Search time and again, judge, write the files, print the report."""
    from circuits.cli.reports.recurrence import recurrence_report, write
    from circuits.search.stability.repeating import repeat_search
    from circuits.search.stability.samples import require_one_graph

    asked.check(least=4)
    repeated.check_count(asked.prompts.count)
    others: list[Any] = []

    def check(model: "circuits.Model") -> None:
        """What does not fit the model, and models that are not of its shape, before prompts are made."""
        if not search.roles:
            search.sized(model)
        for name in repeated.against:
            others.append(dataclasses.replace(setting, model=name).load(work.progress))
            graphs = {model.name: model.graph(), f"{others[-1].name} of {name}": others[-1].graph()}
            require_one_graph(model.graph(), graphs)

    with setting.parts(FILES) as work:
        model, pairs, metric, _ = asked.look(work, check=check, fits=search.sized_between if search.roles else None, least=4)
        search = search.sized_between(model, pairs) if search.roles else search.sized(model)
        against = [(other, drawn.pairs, its) for other in others for drawn, its in [asked.drawn_for(other, work.progress)]]
        found = repeat_search(
            model,
            pairs,
            metric,
            searching=search.searching(),
            seeds=repeated.seeds or 0,
            sample=repeated.sample or "halves",  # type: ignore[arg-type]
            against=against,
            task=asked.prompts.name,
            seed=asked.prompts.seed,
            budget=setting.budget,
            progress=work.progress,
        )
        save(found, work)
        write(found, work.staging)
    setting.answer(recurrence_report(found, work.written, [setting.opening("stability.json"), *_next(asked, setting)]))


def save(found: "Recurrence", work: Work) -> None:
    """The result and the circuit of what holds appear before the pictures."""
    found.save(work.staging / "stability.json")
    if found.circuit is not None and len(found.circuit):
        found.circuit.save(work.staging / "consensus.json")
    else:
        work.files.drop("consensus.json", "consensus.png")
    work.publish()


def _next(asked: Behaviour, setting: Setting) -> list[tuple[str, str]]:
    from circuits.cli.reports.discover import again

    circuit = str(setting.folder / "consensus.json")
    evaluate = setting.command("evaluate", circuit, *again(asked, seed=asked.prompts.seed + 1, usual=1))
    return [(evaluate, "the circuit of what holds, judged against random ones")]


def reopen(file: Path, setting: Setting) -> None:
    """Print a saved result again, and write its tables and pictures beside it, or into the folder asked for."""
    from circuits.cli.reports.recurrence import recurrence_report, write
    from circuits.cli.saved import opened, written_again

    found = opened(circuits.search.Recurrence, file)
    setting, files = written_again(found, file, setting, write, FILES)
    setting.answer(recurrence_report(found, files))
