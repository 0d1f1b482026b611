"""Write data/reference/adapters.py: the file that a learner has who has typed in all solutions of the sources.

The lessons run on its pieces where a learner has none. It also says which exercises there are, and what their pieces
are called.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from textwrap import dedent

from adapters_lesson.course.lesson_source import SOLUTION, read_lesson
from adapters_lesson.course.mine.my_file import GIVEN, MyFile, Section, parse
from adapters_lesson.course.mine.shelf import REFERENCE
from adapters_lesson.course.mine.taken import Notebook

CALLED = {"MyAdapter": "Adapter", "interval_over_seeds": "mean_and_interval"}  # what the lessons call them afterwards
STATE = "the course's own"
WHOLE_MODEL = '''
    def insert_adapters(model, config):
        """Adapters behind both sub-layers of every block, which start as the identity."""
        made = []

        def make_adapter():
            made.append(Adapter(model.base_model.config.hidden_size, config.bottleneck_dim))
            start_as_identity(made[-1])
            return made[-1]

        for block in model.base_model.blocks:
            insert_into_block(block, make_adapter)
        return made


    def set_trainable(model):
        """The adapters and the head are trained, the rest is frozen."""
        train_only_adapters(model)
'''


def reference(folder: Path) -> MyFile:
    """The file, from the sources in a folder."""
    file, pieces = parse(""), set(CALLED.values())
    given = Section("3.9", "The whole model", GIVEN, dedent(WHOLE_MODEL).strip())
    for source in sorted(folder.glob("[0-9]*.py")):
        lesson = read_lesson(source)
        for exercise in lesson.exercises:
            assert exercise.check is not None, f"{source.name}: exercise {exercise.number} calls no check"
            code = [cell for cell in lesson.cells[: exercise.check] if cell.kind == "code"]
            name = lesson.cells[exercise.check].check[1]
            public = CALLED.get(name, name)
            pieces.add(public)
            taken = Notebook([SOLUTION.sub(lambda found: found[2], f"{cell.shown}\n") for cell in code]).take(
                name, public
            )
            file = file.with_answer(exercise.number, exercise.title, public, taken, pieces, [given])
            own = replace(file.sections[exercise.number], state=STATE)
            file = file._replace(sections={**file.sections, exercise.number: own})
    return file


def write(folder: Path) -> None:
    """Write the file."""
    REFERENCE.parent.mkdir(exist_ok=True)
    REFERENCE.write_text(reference(folder).text(), encoding="utf-8")


def write_as_checked(path: Path) -> None:
    """Write the file as a learner has it who has solved everything."""
    file = parse(REFERENCE.read_text(encoding="utf-8"))
    sections = {key: s if s.state == GIVEN else s.checked("2026-01-01") for key, s in file.sections.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(file._replace(sections=sections).text(), encoding="utf-8")


if __name__ == "__main__":
    write(Path(__file__).resolve().parent / "sources")
