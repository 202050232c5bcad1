"""A room imports only rooms above it, and no file uses what this package has sworn off."""

import ast
import collections
import functools
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "circuits"
README = PACKAGE.parent / "README.md"
ROOMS = (
    "errors",
    "progress",
    "statistics",
    "files",
    "runs",
    "graph",
    "models",
    "tasks",
    "heads",
    "lenses",
    "patching",
    "probes",
    "attribution",
    "search",
    "concepts",
    "uses",
    "plots",
    "report",
    "cli",
)
"""From the top down: a room imports those before it, and its own files. The one list of rooms: the package's folders and the
README's table are held against it."""

FRONT = ("__init__", "__main__", "moved")
"""Files of the package itself, which may import every room."""

FILES = [str(path.relative_to(PACKAGE)) for path in sorted(PACKAGE.rglob("*.py"))]
MODULES = {file: ".".join(("circuits", *Path(file).with_suffix("").parts)).removesuffix(".__init__") for file in FILES}
"""Every file's name as a module."""
CIRCLES = {
    frozenset(f"graph/{name}.py" for name in ("circuit", "storage", "document", "mib", "neuronpedia")),
    frozenset({"models/model.py", "models/loading/load.py"}),
}
"""Files that may import each other: a circuit saves and loads itself, and a model is made of one that is native to
TransformerLens, by methods that users know; both import the file that does it when they are called."""

BANNED_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "xml", "lxml", "defusedxml"}
BANNED_CALLS = {"eval", "exec", "compile", "__import__"}
BANNED_ATTRIBUTES = {
    ("torch", "load"),
    ("np", "load"),
    ("numpy", "load"),
    ("os", "system"),
    ("os", "popen"),
    ("pd", "read_pickle"),
    ("pd", "read_xml"),
    ("nx", "read_graphml"),
    ("nx", "read_gexf"),
    ("nx", "parse_graphml"),
}
BANNED_OPTIONS = {"trust_remote_code", "shell", "allow_pickle"}


@functools.cache
def tree_of(file: str) -> ast.Module:
    """A file of the package, parsed."""
    return ast.parse((PACKAGE / file).read_text())


def described(readme: str) -> tuple[str, ...]:
    """The rooms of the README's table of rooms, in its order: what its first cells name."""
    rows = readme.partition("| room |")[2].partition("\n\n")[0].splitlines()[2:]
    return tuple(name for row in rows for name in re.findall(r"`circuits/(\w+)(?:\.py)?`", row.split("|")[1]))


def room_of(file: str) -> str:
    """The room of a file, by its first folder or its own name."""
    return Path(file).parts[0].removesuffix(".py")


def modules(tree: ast.AST, package: tuple[str, ...] = ("circuits",)) -> list[str]:
    """Every module that a file imports, wherever in it, with relative imports resolved."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            origin = ".".join([*base, *([node.module] if node.module else [])])
            found += [f"{origin}.{alias.name}" if origin == "circuits" else origin for alias in node.names]
    return found


@functools.cache
def imports_of(file: str) -> list[str]:
    """The modules that a file of the package imports."""
    return modules(tree_of(file), ("circuits", *Path(file).parts[:-1]))


def upward(file: str, imported: list[str]) -> list[str]:
    """Those imports that go to a room below, or to the package's front."""
    own, wrong = room_of(file), []
    for name in imported:
        parts = name.split(".")
        if parts[0] != "circuits" or own in FRONT:
            continue
        target = parts[1] if len(parts) > 1 else "__init__"
        if name == "circuits" and own == ROOMS[-1]:
            continue  # the command line may use the package as its users do; the names are loaded when they are used
        if target not in ROOMS or ROOMS.index(target) > ROOMS.index(own):
            wrong.append(name)
    return wrong


def files_imported(file: str) -> set[str]:
    """The other files of the package that a file imports, wherever in it."""
    package, named = ("circuits", *Path(file).parts[:-1]), set[str]()
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            origin = ".".join([*base, *([node.module] if node.module else [])])
            below = {f"{origin}.{alias.name}" for alias in node.names}
            # `from circuits.graph import storage` imports that file, `from circuits.graph import Node` the room's front.
            named |= below & set(MODULES.values()) or {origin}
    return {path for path, name in MODULES.items() if name in named and path != file}


def circles(arrows: dict[str, set[str]]) -> set[frozenset[str]]:
    """The sets of files that import each other in a circle (Tarjan 1972): each reaches all others of its set."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    under_way: list[str] = []
    found: set[frozenset[str]] = set()

    def visit(file: str) -> None:
        order[file] = lowest[file] = len(order)
        under_way.append(file)
        for other in arrows[file]:
            if other not in order:
                visit(other)
            if other in under_way:
                lowest[file] = min(lowest[file], lowest[other])
        if lowest[file] == order[file]:
            place = under_way.index(file)
            circle = under_way[place:]
            del under_way[place:]
            found.update([frozenset(circle)] if len(circle) > 1 else [])

    for file in arrows:
        if file not in order:
            visit(file)
    return found


def named_rooms(tree: ast.AST) -> list[str]:
    """Texts that are the name of the room of plots or of a module in it."""
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return [text for text in texts if re.fullmatch(r"circuits\.plots[\w.]*", text)]


def imports_by_name(tree: ast.AST) -> list[str]:
    """The calls that import a module by its name."""
    calls = [ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [call for call in calls if call.split(".")[-1] == "import_module"]


def unpickles_tensors_alone(call: ast.Call) -> bool:
    """Whether a call is `torch.load(..., weights_only=True)`, which runs no code of the file."""
    said = [word.value for word in call.keywords if word.arg == "weights_only"]
    return ast.unparse(call.func) == "torch.load" and [isinstance(v, ast.Constant) and v.value for v in said] == [True]


def sworn_off(tree: ast.AST) -> list[str]:
    """The uses of what is banned, as they are written."""
    found = [name for name in modules(tree) if name.split(".")[0] in BANNED_MODULES]
    tensors_alone = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call) and unpickles_tensors_alone(node)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in BANNED_CALLS:
            found.append(ast.unparse(node))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            banned = (node.value.id, node.attr) in BANNED_ATTRIBUTES and node not in tensors_alone
            found += [ast.unparse(node)] if banned else []
        if isinstance(node, ast.ImportFrom):
            found += [f"{node.module}.{a.name}" for a in node.names if (node.module, a.name) in BANNED_ATTRIBUTES]
        if isinstance(node, ast.keyword) and node.arg in BANNED_OPTIONS:
            off = isinstance(node.value, ast.Constant) and node.value.value is False
            found += [] if off else [ast.unparse(node)]
    return found


def test_a_room_imports_only_rooms_above_it() -> None:
    assert not [file for file in FILES if room_of(file) not in (*ROOMS, *FRONT)], "in no room"
    assert not {file: wrong for file in FILES if (wrong := upward(file, imports_of(file)))}


def test_the_rooms_are_those_of_the_package_and_of_the_readme_in_its_order() -> None:
    there = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert there - set(FRONT) == set(ROOMS)
    assert described(README.read_text(encoding="utf-8")) == ROOMS


def test_this_test_reads_the_first_cells_of_the_table_alone() -> None:
    rows = "|---|---|\n| `circuits/a.py`, `circuits/b` | not `circuits/c` |"
    text = f"`circuits/no` | x |\n\n| room | what |\n{rows}\n\n| `circuits/d` |\n"
    assert described(text) == ("a", "b")


def test_no_file_goes_round_this_test() -> None:
    """An import by a name in a text is one that `imports_of` does not see: only the front names a room so, and only the
    registry of pictures, the command line its own commands, and a cluster's actor the work that it is told, import what they
    name."""
    files = [file for file in FILES if room_of(file) not in FRONT]
    assert not {file: named for file in files if (named := named_rooms(tree_of(file)))}
    assert {file for file in files if imports_by_name(tree_of(file))} == {
        "files/pictures.py",
        "runs/actors.py",
        "cli/__init__.py",
    }


def test_files_do_not_import_each_other_in_circles() -> None:
    assert circles({file: files_imported(file) for file in FILES}) == CIRCLES


def test_a_class_s_name_means_one_thing() -> None:
    names = collections.Counter(
        node.name for file in FILES for node in ast.walk(tree_of(file)) if isinstance(node, ast.ClassDef)
    )
    assert not [name for name, count in names.items() if count > 1]


def test_this_test_sees_circles() -> None:
    arrows = {"a": {"b"}, "b": {"c", "d"}, "c": {"a"}, "d": {"d2"}, "d2": {"d", "e"}, "e": set(), "f": {"a"}}
    assert circles(arrows) == {frozenset("abc"), frozenset({"d", "d2"})}
    assert "graph/storage.py" in files_imported("graph/circuit.py"), "an import inside a method counts"
    assert "heads/text_loss.py" in files_imported("patching/ablation/terms.py")


def test_only_models_imports_transformer_lens() -> None:
    importing = {room_of(file) for file in FILES if any(name.split(".")[0] == "transformer_lens" for name in imports_of(file))}
    assert importing == {"models"}


def test_no_file_uses_what_is_banned() -> None:
    assert not {file: banned for file in FILES if (banned := sworn_off(tree_of(file)))}


def test_no_file_postpones_its_annotations() -> None:
    assert not [file for file in FILES if "__future__" in imports_of(file)], "shapes are checked at run time"


@pytest.mark.parametrize(
    "code",
    [
        "from circuits.models import Model",
        "import circuits.models.load",
        "from circuits import models",
        "from ..models import Model",
        "from .. import models",
        "import circuits",
        "from circuits import load_model",
        "def f():\n    from circuits.search.mechanisms.induction import find",
    ],
)
def test_this_test_sees_an_upward_import(code: str) -> None:
    assert upward("graph/storage.py", modules(ast.parse(code), ("circuits", "graph")))


def test_this_test_sees_an_import_by_name() -> None:
    around = ast.parse('import importlib\nfigure = importlib.import_module("circuits.plots").effects_figure(effects)')
    assert named_rooms(around) == ["circuits.plots"] and len(imports_by_name(around)) == 1


@pytest.mark.parametrize("code", ["from circuits.errors import GraphError", "from .nodes import Node", "import torch"])
def test_this_test_lets_a_downward_import_pass(code: str) -> None:
    assert not upward("graph/storage.py", modules(ast.parse(code), ("circuits", "graph")))


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from xml.etree import ElementTree",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=safe)",
        "read = torch.load",
        "from torch import load",
        "eval(text)",
        "exec(text)",
        "subprocess.run(command, shell=True)",
        "AutoConfig.from_pretrained(name, trust_remote_code=True)",
        "AutoConfig.from_pretrained(name, trust_remote_code=flag)",
        "nx.read_graphml(path)",
    ],
)
def test_this_test_sees_what_is_banned(code: str) -> None:
    assert sworn_off(ast.parse(code))


def test_turning_remote_code_off_is_allowed() -> None:
    assert not sworn_off(ast.parse("from_pretrained(name, trust_remote_code=False)\nmodel.eval()\nre.compile(text)"))
    assert not sworn_off(ast.parse("torch.load(path, map_location='cpu', weights_only=True)"))
