"""What may import what, and how light the package is."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import adapters_lesson

PACKAGE = Path(adapters_lesson.__file__).parent
HEAVY = ("torch", "transformers", "datasets", "matplotlib", "ipywidgets", "peft", "sklearn", "safetensors")


def loaded_after(statement):
    """The heavy packages that a fresh Python has loaded after ``statement``."""
    code = f"import sys, json\n{statement}\nprint(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    return set(json.loads(run.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    ("statement", "allowed"),
    [
        ("import adapters_lesson; dir(adapters_lesson)", set()),
        ("from adapters_lesson import load_task, encode, History", set()),
        ("import adapters_lesson.adapter, adapters_lesson.transformer", {"torch"}),
        ("from adapters_lesson import insert_adapters, prepare, train, load_minilm", {"torch"}),
    ],
)
def test_imports_stay_light(statement, allowed):
    assert loaded_after(statement) <= allowed


def test_every_public_name_is_there():
    assert adapters_lesson.__all__
    for name in adapters_lesson.__all__:
        value = getattr(adapters_lesson, name)
        assert value.__name__ == name
        assert value.__doc__
        assert name in dir(adapters_lesson)
    with pytest.raises(AttributeError, match="module 'adapters_lesson' has no attribute 'Adaptor'"):
        adapters_lesson.Adaptor  # noqa: B018


def imports_of(path):
    """(what is imported, whether at the top of the file) for each import anywhere in a file; ours as ".name"."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = path.relative_to(PACKAGE).parts[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node in tree.body
        elif isinstance(node, ast.ImportFrom):
            if node.level == 0:
                names = [node.module]
            else:
                home = list(package[: len(package) - node.level + 1]) + (node.module.split(".") if node.module else [])
                names = ["adapters_lesson." + ".".join(home)]
                if not node.module:
                    names = ["adapters_lesson." + ".".join([*home, alias.name]) for alias in node.names]
            yield from ((name.rstrip("."), node in tree.body) for name in names)


def room(path):
    """The module or folder of the package in which a file is."""
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(PACKAGE)) for path in FILES])
def test_each_room_imports_only_what_it_may(path):
    names = list(imports_of(path))
    imported = {name.split(".")[0] for name, _ in names}
    at_the_top = {name.split(".")[0] for name, top in names if top}
    if room(path) != "lab":
        assert not imported & {"ipywidgets", "IPython"}
    if room(path) not in ("lab", "plots"):
        assert "matplotlib" not in imported
        assert not at_the_top & {"transformers", "datasets", "peft", "sklearn"}
    if room(path) in ("adapter", "transformer"):
        assert not imported & {"transformers", "safetensors", "datasets", "peft"}
    ours = {name.split(".")[1] for name, _ in names if name.startswith("adapters_lesson.")}
    assert not ours & FORBIDDEN.get(room(path), ABOVE_THE_CORE)


ABOVE_THE_CORE = {"plots", "lab", "checks"}
# Dependency runs one way: adapter, transformer <- insertion <- methods, bank <- training <- plots <- lab.
FORBIDDEN = {
    "adapter": ABOVE_THE_CORE | {"transformer", "architectures", "insertion", "methods", "training", "tasks"},
    "transformer": ABOVE_THE_CORE | {"adapter", "architectures", "insertion", "methods", "training", "tasks"},
    "architectures": ABOVE_THE_CORE | {"insertion", "methods", "training", "tasks"},
    "slots": ABOVE_THE_CORE | {"insertion", "methods", "training", "tasks"},
    "insertion": ABOVE_THE_CORE | {"methods", "bank", "training", "tasks"},
    "methods": ABOVE_THE_CORE | {"training", "tasks"},
    "bank": ABOVE_THE_CORE | {"methods", "training", "tasks"},
    "composition": ABOVE_THE_CORE | {"methods", "bank", "storage", "training", "tasks"},
    **dict.fromkeys(
        [path.stem for path in PACKAGE.glob("storage*.py")] + [path.stem for path in PACKAGE.glob("adapterhub*.py")],
        ABOVE_THE_CORE | {"methods", "training", "tasks"},
    ),
    "batches": ABOVE_THE_CORE | {"methods", "bank", "storage", "training", "tasks"},
    "evaluation": ABOVE_THE_CORE | {"methods", "bank", "storage", "training", "tasks"},
    "distributed": ABOVE_THE_CORE | {"methods", "training", "tasks"},
    "inspector": ABOVE_THE_CORE | {"training", "tasks"},
    "command": ABOVE_THE_CORE,
    "language": ABOVE_THE_CORE | {"methods", "training", "tasks", "answers"},
    "answers": ABOVE_THE_CORE | {"methods", "training", "insertion"},
    "jobs": ABOVE_THE_CORE,
    "plots": {"lab", "checks"},
    "checks": {"lab"},
    "lab": set(),
}


def test_the_rule_is_read_right():
    found = {name for name, _ in imports_of(PACKAGE / "insertion.py")}
    assert {"torch", "adapters_lesson.adapter", "adapters_lesson.architectures"} <= found
    assert "safetensors.torch" in {name for name, top in imports_of(PACKAGE / "pretrained.py") if not top}
