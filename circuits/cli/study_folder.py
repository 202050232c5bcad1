"""The folder of a study: what is there already is read, and what is found is written as it comes."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import circuits
from circuits.cli.output import parts, pictured, save_figure
from circuits.cli.prompts import Behaviour, PromptOptions
from circuits.cli.questions.discover import Search
from circuits.cli.reports.discover import write as write_circuit
from circuits.cli.reports.discover_parts import edge_table, noted
from circuits.cli.reports.study import circuit_line, command_of, planned_table
from circuits.cli.settings import Work
from circuits.errors import CircuitsError
from circuits.files.origins import made_by
from circuits.files.unfinished import unfinished_run
from circuits.search.studying.asked import StudyTask
from circuits.search.studying.plan import fits
from circuits.search.studying.results import StudiedCircuit, Study, StudyPlan, StudySettings, task_folder
from circuits.search.studying.run import StudyPart

STUDIED, PLAN = "studied.json", "plan.json"


def task_of(name: str, options: PromptOptions) -> StudyTask:
    """The task, or the pairs of a file."""
    if options.prompts is None:
        return StudyTask.named(name)
    sha256 = hashlib.sha256(options.prompts.read_bytes()).hexdigest()
    return StudyTask.of_pairs(name, options.pairs, about=options.describe(), sha256=sha256)


@dataclasses.dataclass(eq=False)
class StudyFolder:
    """Where a study's files go, a folder a task; `files`: what may stand in such a folder, with what is in each."""

    work: Work
    asked: Mapping[str, PromptOptions]
    files: Mapping[str, str]
    read: list[str] = dataclasses.field(default_factory=list)
    """Tasks whose circuits were there already."""

    def of(self, task: str) -> Path:
        """The folder of a task."""
        return self.work.setting.folder / task_folder(task)

    def beside(self, task: str) -> Path:
        """A folder beside the study's, where a task's circuit found once more overwrites nothing."""
        folder = self.work.setting.folder.resolve()
        return self.work.setting.folder.parent / f"{folder.name}-{task_folder(task)}"

    def plan(self, model: "circuits.Model", tasks: Sequence[StudyTask], *, seed: int, budget: float | None) -> StudyPlan | None:
        """The plan that is there, where it is about what is asked now."""
        try:
            found = StudyPlan.load(self.work.setting.folder / PLAN)
        except CircuitsError:
            return None
        return found if fits(found, model, tasks, seed=seed, budget=budget) else None

    def known(
        self, model: "circuits.Model", settings: StudySettings
    ) -> "tuple[StudiedCircuit, circuits.Circuit | None] | None":
        """What is there of a task, whole and of the same model and settings, and not for want of memory that there is now."""
        file = self.of(settings.task) / STUDIED
        try:
            found = StudiedCircuit.load(file)
            circuit = None if found.verdict is None else circuits.Circuit.load(file.parent / "circuit.json")
        except CircuitsError:
            return None
        if found.settings != settings or found.weights_sha256 != model.fingerprint or unfinished_run(file) is not None:
            return None
        if found.memory is not None and found.memory < self.work.setting.budget:
            return None
        self.read.append(settings.task)
        self.work.say(f"{circuit_line(found)} (read from {self.of(settings.task)})")
        return found, circuit

    def add(self, part: Any) -> None:
        """The plan, or a task's circuit."""
        if isinstance(part, StudyPlan):
            part.save(self.work.staging / PLAN)
            self.work.publish()
            self.work.say(*planned_table(part))
        elif isinstance(part, StudyPart):
            self._add_circuit(part)
            self.work.say(circuit_line(part.studied))

    def question(self, settings: StudySettings) -> tuple[Search, Behaviour]:
        """What `circuits discover` would be asked."""
        options = self.asked[settings.task]
        prompts = dataclasses.replace(options, count=settings.count, seed=settings.seed)
        prompts.read[:] = options.read
        search = Search(
            name=settings.method,
            level="heads",
            size=str(settings.edges),
            edges=settings.edges,
            by=None,
            steps=None,
            threshold=None,
            verify=False,
            random_circuits=settings.random_circuits,
            minimality=settings.minimality,
        )
        return search, Behaviour(prompts=prompts, metric=None)

    def _add_circuit(self, part: StudyPart) -> None:
        """All files of a task; the one that says that they are whole comes last."""
        task, found = part.studied.task, part.discovery
        files = [STUDIED, *(["induction_heads.json"] if part.mechanism is not None else [])]
        every = {one: what for name, what in self.files.items() for one in pictured([name])}
        about = {"job": "study", "command": self.work.files.mark.command, "files": every, "expected": files}
        again = command_of(part.studied.settings, str(self.asked[task].prompts or task), self.work.setting)
        with parts(self.of(task), **about) as folder, made_by(again):
            if part.mechanism is not None:
                part.mechanism.save(folder.staging / "induction_heads.json")
            if found is not None and part.looked is not None:
                search, asked = self.question(part.studied.settings)
                circuit = noted(found.circuit, found.verdict, search, asked)
                found = dataclasses.replace(found, circuit=circuit)
                part.looked.save(folder.staging / "prompts.json")
                found.verdict.save(folder.staging / "verdict.json")
                edge_table(found.circuit, found.scores, None).to_csv(folder.staging / "edges.csv", index=False)
                if found.scores is not None:
                    found.scores.save(folder.staging / "scores.json")
                if found.curve is not None:
                    found.curve.save(folder.staging / "curve.json")
                    found.curve.to_dataframe().to_csv(folder.staging / "curve.csv", index=False)
                write_circuit(found, folder.staging, f"{task} in {part.studied.model}: circuit by {search.describe()}")
            part.studied.save(folder.staging / STUDIED)

    def write(self, study: Study) -> None:
        """The study's own files, but the report."""
        folder = self.work.staging
        study.save(folder / "study.json")
        study.to_dataframe().to_csv(folder / "behaviours.csv", index=False)
        study.overlap_table().to_csv(folder / "overlaps.csv", index=False)
        save_figure(study.plot(), folder / "study.png")
