"""With which model a command works, where its files go, and how it answers."""

import contextlib
import dataclasses
import functools
import inspect
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

import circuits
from circuits.cli.errors import Context
from circuits.cli.loading import load, naming_options, opening_said
from circuits.cli.options import (
    AsJson,
    Bos,
    Device,
    Devices,
    Dtype,
    Edits,
    Fresh,
    Memory,
    ModelName,
    PictureFormats,
    Ray,
    Workers,
    folder,
)
from circuits.cli.output import PICTURES, Parts, parts, pictured, pictures_as, staged
from circuits.cli.progress import ProgressBars
from circuits.cli.report import Part, Report, text_of
from circuits.cli.running import WORKER, Running, course, running
from circuits.cli.text import one_line, print_json, quoted
from circuits.errors import CircuitsError
from circuits.files.origins import made_by

_ASIDE = {"--out": 1, "--pictures": 1, "--json": 0, "--workers": 1, "--ray": 1, "--fresh": 0}
"""Options that decide nothing of what is found, with the number of words behind each."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """The model, the folder and the form of the answer, as the command line names them; `job` is the command's name, `bos` what
    prompts open with where that is not left to the tokenizer."""

    job: str
    model: str = "mini"
    device: str = "cpu"
    devices: str | None = None
    """Several devices that layers are spread over, between commas."""
    dtype: str = "float32"
    memory: int = 256
    out: Path | None = None
    bos: bool | None = None
    edits: tuple[Path, ...] = ()
    """Files of edits that are put on the model."""
    as_json: bool = False
    pictures: str = "png"
    """The formats of pictures, between commas."""
    whole: Path | None = dataclasses.field(default=None, compare=False, repr=False)
    """In a worker, whose own files nobody reads: the folder of the run that it takes part in."""
    said: list[str] = dataclasses.field(default_factory=list, compare=False, repr=False)
    """What is to be said of the loaded model besides the answer."""
    told: list[str] = dataclasses.field(default_factory=list, compare=False, repr=False)
    """Parts of the report that were printed as they came."""
    words: tuple[str, ...] = dataclasses.field(default=(), compare=False, repr=False)
    """The command line, as it was typed."""

    @property
    def budget(self) -> int:
        """Bytes that a pass may take."""
        return self.memory * 2**20

    @property
    def folder(self) -> Path:
        """Where the files go: the folder asked for, or one named after the job and the last part of the model's name, and
        another one with edits on."""
        if self.out is not None:
            return self.out
        last = self.model.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", last).strip(".-") or "model"
        return Path("out") / f"{self.job}-{name}{'-edited' if self.edits else ''}"

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats of pictures. Raises CircuitsError for one that there is none of."""
        found = tuple(dict.fromkeys(name.strip().lower() for name in self.pictures.split(",")))
        wrong = next((name for name in found if name not in PICTURES), None)
        if wrong is not None:
            raise CircuitsError(f"--pictures is {self.pictures!r}; expected one or several of {', '.join(PICTURES)}")
        return found

    def beside(self, file: Path) -> "Setting":
        """The same for a saved result: its files go beside it, or into the folder asked for; it says where the run that wrote
        it did not finish."""
        from circuits.files.unfinished import unfinished_run

        self.said.extend(filter(None, [unfinished_run(file)]))
        return dataclasses.replace(self, out=file.parent if self.out is None else self.out)

    @contextlib.contextmanager
    def work(
        self, *, replacing: Sequence[str] = (), names: Sequence[str] = (), options: str = "--count, --memory"
    ) -> Iterator[tuple[Path, ProgressBars]]:
        """A folder to write files into and the bars that show progress; the files appear together at the end, or not at all.

        `replacing`: files of an earlier run that go where they are not written anew; `names`: further files that nobody else
        may write meanwhile; `options`: those that decide how much memory is needed.
        """
        with (
            pictures_as(self.formats),
            staged(self.folder, replacing=pictured(replacing), names=pictured(names), who=self.line) as staging,
            ProgressBars() as progress,
            naming_options(options),
        ):
            yield staging, progress

    @contextlib.contextmanager
    def parts(
        self,
        files: Mapping[str, str],
        *,
        expected: Collection[str] | None = None,
        below: str = "",
        options: str = "--count, --memory",
    ) -> Iterator["Work"]:
        """The work of a command, whose files and tables appear as they come. `files`, `expected`: as `output.parts` has them;
        `below`: the subcommand; `options`: those that decide how much memory is needed."""
        line = " ".join(map(quoted, ["circuits", *(self.words or (self.job,))]))
        job = " ".join(filter(None, [self.job, below]))
        coming = [name for name in files if "*" not in name] if expected is None else expected
        every = {one: what for name, what in files.items() for one in pictured([name])}
        about: dict[str, Any] = {"job": job, "command": line, "files": every, "expected": pictured(coming, self.formats)}
        with (
            pictures_as(self.formats),
            parts(self.folder, **about) as found,
            ProgressBars() as progress,
            naming_options(options),
        ):
            yield Work(self, found, progress)

    def load(self, progress: ProgressBars) -> "circuits.Model":
        """Load the model, and show that; say where its prompts open otherwise than its tokenizer opens them. Raises ModelError
        where it, the device, the number format or the BOS asked for cannot be had."""
        progress("loading the model", 0, 1)
        where: dict[str, Any] = {"device": self.device, "devices": self.devices, "dtype": self.dtype}
        loaded = load(self.model, **where, edits=self.edits).with_bos(self.bos)
        progress("loading the model", 1, 1)
        self.said.extend(f"{self.model} with an edit on: {edit.name}" for edit in loaded.edits)
        if loaded.stored and loaded.stored != "F32":
            self.said.append(f"{loaded.name}: weights stored as {loaded.stored}, dequantised to {self.dtype}")
        self.said.extend(filter(None, [opening_said(loaded)]))
        return loaded

    def command(self, *words: str, model: bool = True) -> str:
        """A command line about the same model."""
        named = {"--model": self.model, "--device": self.device, "--dtype": self.dtype} if model else {}
        usual = ("mini", "cpu", "float32")
        more = [word for pair, own in zip(named.items(), usual, strict=False) if pair[1] != own for word in pair]
        more += [] if self.devices is None or not model else ["--devices", self.devices]
        more += [word for file in self.edits if model for word in ("--edits", str(file))]
        more += [] if self.bos is None or not model else ["--bos" if self.bos else "--no-bos"]
        return " ".join(map(quoted, ["circuits", *words, *more]))

    def of_saved(self, name: str) -> "Setting":
        """The same about the model of a saved result, which knows the last part of its path alone: MODEL where that is not
        one that loads."""
        there = name in circuits.bundled_models() or "/" in name or Path(name).exists()
        return dataclasses.replace(self, model=name if there else "MODEL")

    @property
    def line(self) -> str:
        """The command line as it was typed, without what says where files go and how the answer looks: what is saved with a
        result, so that the same question is the same file anywhere. Empty where no command line was typed."""
        kept, words = [], list(self.words)
        while words:
            word = words.pop(0)
            name, given, _ = word.partition("=")
            if name in _ASIDE:
                del words[: _ASIDE[name] and not given]
            else:
                kept.append(word)
        return " ".join(map(quoted, ["circuits", *kept])) if self.words else ""

    def opening(self, file: str, *below: str) -> tuple[str, str]:
        """How to see a saved result again, as a step to try next; `below`: the subcommand that shows it."""
        again = self.command(*self.job.split("-"), *below, "--open", str(self.folder / file), model=False)
        return again, "this result again"

    def answer(self, report: Report) -> None:
        """Print a report in the form that was asked for, and before it on stderr what is to be said of the model."""
        for line in self.said:
            typer.echo(one_line(line), err=True)
        self.said.clear()
        if self.as_json:
            said = {} if self.bos is None else {"bos": self.bos}
            print_json({**report.as_json(self.folder), **said})
        else:
            typer.echo(report.text(self.folder, said=self.told))


@dataclasses.dataclass(frozen=True, eq=False)
class Work:
    """The work of a command under way: its files, which appear part by part, and what is printed as it comes."""

    setting: Setting
    files: Parts
    progress: ProgressBars

    @property
    def staging(self) -> Path:
        """The folder to write files into."""
        return self.files.staging

    def publish(self, *, lacking: str = "", found: bool = True) -> None:
        """What was written appears where the files go; `lacking`: what it still lacks, in words; `found`: whether it is of what
        was found, not only of what was asked."""
        self.files.publish(lacking=lacking, found=found)

    @property
    def written(self) -> dict[str, str]:
        """The files that are there, with what is in each, in the command's order."""
        return self.files.done

    def say(self, *found: Part) -> None:
        """Print parts of the report now; `answer` does not print them again. With JSON nothing is said before the end."""
        if self.setting.as_json:
            return
        for line in self.setting.said:
            self.progress.say(one_line(line), err=True)
        self.setting.said.clear()
        for text in map(text_of, found):
            if text and text not in self.setting.told:
                with contextlib.suppress(BrokenPipeError):  # who read the first lines may be gone: the work goes on
                    self.progress.say(f"{text}\n")
                self.setting.told.append(text)


def with_setting(
    job: str,
    *,
    memory: bool = False,
    text: bool = True,
    out: Any = None,
    instead: str = "",
    long: bool | None = None,
    target: str = "",
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """For a command: behind its own options stand those that all share, and they reach it as one `setting`: where files go
    (`out`: an option in place of the one that names a folder), with `memory` how much of it a pass may take, with `text` how
    prompts open, the model, the device, the number format, and JSON. A command that loads no model says what stands `instead`
    of its name in the folder's, and lacks the options about models. What a `long` one (default: one with `memory`) has found
    is kept while it runs, and other processes may take part; `target`: an argument that names a file which it writes."""
    where = {"out": (Annotated[Path | None, folder(job, instead or "MODEL") if out is None else out], None)}
    models = {
        **({"memory": (Memory, 256)} if memory else {}),
        "model": (ModelName, "mini"),
        "device": (Device, "cpu"),
        "devices": (Devices, None),
        "dtype": (Dtype, "float32"),
        "edits": (Edits, None),
        **({"bos": (Bos, None)} if text else {}),
    }
    pictures = {"pictures": (PictureFormats, "png")} if out is None else {}
    long = memory if long is None else long
    runs = {"workers": (Workers, 1), "ray": (Ray, None), "fresh": (Fresh, False)} if long else {}
    shared = {**where, **pictures, **({} if instead else models), **runs, "as_json": (AsJson, False)}
    fixed = {"job": job, **({"model": instead} if instead else {})}

    def around(command: Callable[..., None]) -> Callable[..., None]:
        """The command with the shared options in its signature."""
        own = [one for name, one in inspect.signature(command).parameters.items() if name != "setting"]
        kind = inspect.Parameter.KEYWORD_ONLY
        more = [inspect.Parameter(name, kind, default=usual, annotation=of) for name, (of, usual) in shared.items()]

        heard = next((one.name for one in own if one.annotation is Context), None)
        also = [] if heard else [inspect.Parameter("_context", kind, annotation=Context)]

        @functools.wraps(command)
        def run(**options: Any) -> None:
            """Call the command with a `Setting` in place of the shared options."""
            context = options[heard] if heard else options.pop("_context")
            given = {name: value for name, value in options.items() if name not in (heard, target)}
            how = {name: options.pop(name, usual) for name, (_, usual) in runs.items()}
            own = {name: options.pop(name, usual) for name, (_, usual) in shared.items() if name not in runs}
            edits = tuple(own.pop("edits", None) or ())
            setting = Setting(**fixed, words=tuple(context.obj or ()), edits=edits, **own)
            with contextlib.ExitStack() as stack:
                stack.enter_context(made_by(setting.line))  # all that a command saves tells its command line
                worker = WORKER.get()
                if worker is not None:
                    file = None if setting.out is None else worker.folder / setting.out.name
                    setting = dataclasses.replace(setting, whole=setting.folder, out=worker.folder if out is None else file)
                    worker.runner.course = course(given)
                elif how and options.get("open_file") is None:
                    name = context.info_name or job
                    where = setting.folder
                    if out is not None and setting.out is not None:  # it names a file
                        name, where = f"{name} {setting.out.name}", setting.out.parent
                    stack.enter_context(running(Running(name, where, given, setting.words, **how)))
                command(**options, setting=setting)

        run.__signature__ = inspect.Signature([*own, *more, *also])  # type: ignore[attr-defined]
        run.__annotations__ = {one.name: one.annotation for one in (*own, *more, *also)}
        return run

    return around
