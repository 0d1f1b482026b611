"""Say what the lessons lack: `python notebooks/check.py [01 …]`. One line each: the file, what is wrong, what to do.

The tests call the same functions, so what this finds nothing in passes them. Nothing is executed.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import about
import accessible
import build
import nbformat
import reference
import translation

from adapters_lesson.course.lesson_source import Cell, Exercise, Lesson, course, read_lesson
from adapters_lesson.course.mine.shelf import exercises, public_name

WORDS_A_MINUTE = 130
WRONG, RIGHT = 8, 3  # answers in the collection for each exercise, at least
FRAME = (
    *("**The question.**", "**You will be able to**", "**Before you start.**", "**Time.**"),
    *("## Check yourself", "## What we saw", "**Sources.**", "**Next.**"),
)
CARD_PARTS = {
    "**Write**": "say what to write, after **Write**",
    "**Done**": "say what done looks like, after **Done**",
    "<summary>Hint 1</summary>": "add Hint 1, which says where to look",
    "<summary>Hint 2</summary>": "add Hint 2, which says how to begin",
}
TEACHING_PARTS = ["Say", "Stall", "Ask", "Show", "Shorter"]
PREDICTION = re.compile(r"^prediction\(", re.MULTILINE)
TURNED = re.compile(
    r"^(?:\w+_explorer|guided_experiments|quiz|review|concept_test|Playground)\(|^laboratory$", re.MULTILINE
)
ARXIV = re.compile(r"arXiv[\s:]+(\d{4}\.\d{4,5})")


def lacks(source: Path) -> list[str]:
    """What the lesson with this source lacks, in its repository."""
    root, lesson = source.parents[2], read_lesson(source)
    looks = (
        _frame,
        _minutes,
        _builds_on,
        _figures,
        _exercises,
        _answers,
        _quiz,
        _rows,
        _teaching,
        _editions,
        _days,
        _translations,
    )
    return [f"{file}: {what}" for look in looks for file, what in look(root, lesson)]


Found = Iterator[tuple[str, str]]


def _frame(root: Path, lesson: Lesson) -> Found:
    file = f"notebooks/sources/{lesson.name}.py"
    for part in FRAME:
        if part not in lesson.text:
            yield file, f"has no {part}: add it"
    five = lesson.text.partition("## What we saw")[2].partition("**Sources.**")[0]
    if re.findall(r"^(\d)\.", five, re.MULTILINE) != list("12345"):
        yield file, "what we saw has to be five numbered lines"
    bibliography = (root / "docs" / "bibliography.md").read_text(encoding="utf-8")
    entries = re.split(r"^### ", bibliography, flags=re.MULTILINE)
    for number in sorted(set(ARXIV.findall(lesson.text))):
        if not any(number in entry and f"/{lesson.name}.ipynb" in entry for entry in entries):
            yield "docs/bibliography.md", f"the entry of arXiv {number} has to say that {lesson.name} uses it"


def minutes_needed(lesson: Lesson) -> float:
    """Reading and exercises. What is folded up is not counted, nor are optional ones and formulas that stand alone."""
    text = re.sub(r"<details>.*?</details>|\$\$.*?\$\$", "", lesson.text, flags=re.DOTALL)
    words = len(re.findall(r"[A-Za-z0-9][\w’'.,%·-]*", text))
    return words / WORDS_A_MINUTE + sum(e.minutes for e in lesson.exercises if not e.optional)


def active_minutes(lesson: Lesson) -> float:
    """Of writing, predicting and turning: half a minute for a prediction, two for a widget or a round of questions."""
    code = code_of(lesson)
    predictions = len(PREDICTION.findall(code))
    return sum(e.minutes for e in lesson.exercises if not e.optional) + predictions / 2 + 2 * len(TURNED.findall(code))


def shares() -> str:
    """The table of minutes: reading and exercises as counted, and the share that is not reading."""
    lines = [f"{'':28}{'minutes':>8}{'active':>8}{'share':>8}"]
    for source in build.sources():
        lesson = read_lesson(source)
        active = active_minutes(lesson)
        exercises = sum(e.minutes for e in lesson.exercises if not e.optional)
        together = minutes_needed(lesson) - exercises + active
        lines.append(f"{lesson.name:28}{together:8.1f}{active:8.1f}{active / together:8.0%}")
    return "\n".join(lines)


def _minutes(root: Path, lesson: Lesson) -> Found:
    rows = {row["lesson"]: row for row in course(root / "notebooks")}
    if not (row := rows.get(lesson.name)):
        yield "notebooks/course.csv", f"has no row {lesson.name}: add it, with title, question and minutes"
        return
    file = f"notebooks/sources/{lesson.name}.py"
    heading = f"# {lesson.name[:2]} · {row['title']}"
    if not lesson.cells[0].source.startswith(f"{heading}\n"):
        yield file, f"has to begin with {heading}, or course.csv is to be changed"
    if re.findall(r"^\*\*Time\.\*\* (\d+) minutes", lesson.text, re.MULTILINE) != [row["minutes"]]:
        yield file, f"**Time.** has to say {row['minutes']} minutes, as course.csv does"
    if (needed := minutes_needed(lesson)) > int(row["minutes"]):
        yield (
            file,
            f"takes {needed:.1f} minutes of reading and exercises, not {row['minutes']}: shorten it, or say more",
        )
    if lesson.exercises and active_minutes(lesson) < needed / 3:
        yield file, "is too much book: less than a third of its minutes is writing, predicting or turning"


def jobs(code: str) -> list[list[str]]:
    """The numbers of the exercises that each ``mine.run(job, "1.1", …)`` of a lesson's code names."""
    calls = (node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call))
    return [
        [arg.value for arg in call.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
        for call in calls
        if ast.unparse(call.func) == "mine.run"
    ]


def pieces_used(lesson: Lesson) -> list[str]:
    """The learner's pieces of earlier lessons that this one runs on, in its jobs or in what its exercises ask for."""
    named = {piece for job in jobs(code_of(lesson)) for piece in job}
    solved = "\n".join(solution for cell in lesson.cells for solution in cell.solutions)
    named |= {number for number in exercises() if re.search(rf"\b{public_name(number)}\b", solved)}
    places = sorted(tuple(map(int, number.split("."))) for number in named)
    return [f"{number}.{k}" for number, k in places if number < int(lesson.name[:2])]


def _builds_on(root: Path, lesson: Lesson) -> Found:
    """Whether the map of the course shows what the lesson says it needs, and what it uses."""
    row = next((row for row in course(root / "notebooks") if row["lesson"] == lesson.name), None)
    if row:
        before = lesson.text.partition("**Before you start.**")[2].partition("**Time.**")[0]
        named = re.findall(r"\b(\d\d)(?: to (\d\d))?\b", before)
        needed = sorted({n for low, high in named for n in range(int(low), int(high or low) + 1)})
        expected = {"builds_on": [f"{n:02}" for n in needed], "uses": pieces_used(lesson)}
        for column, numbers in expected.items():
            if (row[column] or "").split() != numbers:
                words = " ".join(numbers) or "nothing"
                yield "notebooks/course.csv", f"{lesson.name} has to have {words} as what it {column.replace('_', ' ')}"


def _figures(root: Path, lesson: Lesson) -> Found:
    """A figure is the value of its cell: where code follows ``show(…)``, it is never seen."""
    for cell in (cell for cell in lesson.cells if cell.kind == "code"):
        if any(ast.unparse(statement).startswith("show(") for statement in ast.parse(cell.source).body[:-1]):
            yield (
                f"notebooks/sources/{lesson.name}.py",
                f"put show(…) last in its cell, or nobody sees it: {cell.source[:40]!r}",
            )


def code_of(lesson: Lesson, since: int = 0) -> str:
    """The code of a lesson's cells."""
    return "\n".join(cell.source for cell in lesson.cells[since:] if cell.kind == "code")


def _exercises(root: Path, lesson: Lesson) -> Found:
    file, number = f"notebooks/sources/{lesson.name}.py", lesson.name[:2]
    if lesson.text.count("### Exercise ") != len(lesson.exercises):
        yield file, "give each exercise a cell of its own that says ### Exercise N.k · its title"
    checks = "\n".join(
        path.read_text(encoding="utf-8")
        for path in (root / "adapters_lesson" / "course" / "checks").glob(f"lesson{number}*.py")
    )
    if lesson.exercises and lesson.name[:2] != "00" and len(PREDICTION.findall(code_of(lesson))) < 3:
        yield file, "ask for at least three predictions: prediction(…) before a result, and compare(…) with it"
    for k, exercise in enumerate(lesson.exercises, 1):
        if exercise.number != f"{int(number)}.{k}":
            yield file, f"exercise {exercise.number} has to be {int(number)}.{k}"
        for fault in _faults(lesson, exercise):
            yield file, f"exercise {exercise.number}: {fault}"
        if not any(exercise.number in job for job in jobs(code_of(lesson, exercise.check or 0))):
            yield (
                file,
                f'exercise {exercise.number} is used nowhere after its check: mine.run(job, "{exercise.number}")',
            )
        if exercise.check:
            name = lesson.cells[exercise.check].check[0]
            if not re.search(rf'^@check\(\s*"{exercise.number}",[^@]*?^def {name}\(', checks, re.MULTILINE | re.DOTALL):
                file_of_checks = f"adapters_lesson/course/checks/lesson{number}.py"
                yield file_of_checks, f'write {name} with @check("{exercise.number}", "…")'


def _faults(lesson: Lesson, exercise: Exercise) -> Iterator[str]:
    """What to do about one exercise in its source."""
    if not exercise.difficulty:
        yield "its card needs **Difficulty** ◆◇◇ · **5 minutes**"
    yield from (what for part, what in CARD_PARTS.items() if exercise.card.count(part) != 1)
    if exercise.card.count("<summary>I see ") < 2:
        yield "add “I see …” for the two most common mistakes"
    if not exercise.answers:
        yield "mark the answer with ### BEGIN SOLUTION and ### END SOLUTION"
    if not exercise.check:
        yield "add a cell that ends with checks.check_…(the learner's name)"
    elif not (hidden := lesson.cells[exercise.check].hidden):
        yield "add ### BEGIN HIDDEN TESTS and ### END HIDDEN TESTS after its check"
    else:
        tests = [node for node in ast.walk(ast.parse(hidden)) if isinstance(node, ast.Assert)]
        if not 1 <= len(tests) <= 4 or not all(test.msg for test in tests):
            yield "its hidden tests have to be one to four asserts, each with a message"


def _answers(root: Path, lesson: Lesson) -> Found:
    """Whether the collection has enough answers for each check."""
    if not lesson.exercises:
        return
    file = f"tests/wrong_answers/lesson{lesson.name[:2]}.py"
    try:
        collection = _load(root / file)
    except Exception as error:  # whatever a module of answers may raise
        yield file, f"cannot be imported ({type(error).__name__}: {error}): write or mend it"
        return
    for exercise in lesson.exercises:
        name = lesson.cells[exercise.check].check[0] if exercise.check else ""
        for kind, needed in (("WRONG", WRONG), ("RIGHT", RIGHT)):
            if (there := len(getattr(collection, kind, {}).get(name, ()))) < needed:
                yield file, f"{kind} has {there} answers for {name or exercise.number}: at least {needed} are needed"


def _load(path: Path) -> Any:
    """A module of tests/wrong_answers, of whichever repository; it may import its neighbours."""
    tests = str(path.parents[1])
    if tests not in sys.path:
        sys.path.append(tests)
    spec = importlib.util.spec_from_file_location(f"wrong_answers.{path.stem}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _quiz(root: Path, lesson: Lesson) -> Found:
    number, file = lesson.name[:2], f"notebooks/quizzes/{lesson.name[:2]}.json"
    if not lesson.exercises and not (root / file).exists():
        return
    asked = next((cell for cell in lesson.cells if cell.kind == "code" and cell.source == f'quiz("{number}")'), None)
    if not asked:
        yield f"notebooks/sources/{lesson.name}.py", f'has no cell quiz("{number}"): add it to Check yourself'
    for path in sorted((root / "notebooks" / "quizzes").glob(f"{number}_*.json")):
        yield from ((f"notebooks/quizzes/{path.name}", fault) for fault in quiz_faults(path))
    if not (root / file).exists():
        yield file, "is missing: write four or five questions"
        return
    yield from ((file, fault) for fault in quiz_faults(root / file))


def quiz_faults(path: Path) -> Iterator[str]:
    """What is wrong with a quiz: a list of ``{"text": …, "options": [{"text": …, "reason": …, "right": true}, …]}``.

    That of a lesson, NN.json, is on buttons, one question at a time, so that its texts have to be short.
    """
    try:
        questions = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        yield f"is not JSON ({error}): mend it"
        return
    if not isinstance(questions, list) or not 3 <= len(questions) <= 5:
        yield "has to be a list of four or five questions"
        return
    for number, question in enumerate(questions, 1):
        found = list(_question_faults(question))
        if (
            not found
            and path.stem.isdigit()
            and (len(question["text"]) > 110 or len(question["options"]) not in (3, 4))
        ):
            found = ["it has to have at most 110 characters, and three or four options"]
        yield from (f"question {number}: {fault}" for fault in found)


def _question_faults(question: Any) -> Iterator[str]:
    options = question.get("options") if isinstance(question, dict) else None
    if not isinstance(options, list) or question.keys() - {"claim"} != {"text", "options"}:
        yield "it has to have a text and a list of options, a claim (see claims.py), and nothing else"
        return
    if not 2 <= len(options) <= 8:
        yield "it needs 2 to 8 options"
    if not all(isinstance(option, dict) and {"text", "reason"} <= option.keys() for option in options):
        yield "each option has to have a text and a reason"
        return
    if any(option.keys() - {"text", "reason", "right"} or option.get("right", True) is not True for option in options):
        yield 'an option has a text, a reason, and "right": true or nothing more'
    texts = [question["text"], *(option[key] for option in options for key in ("text", "reason"))]
    if not all(isinstance(text, str) and text.strip() for text in texts):
        yield "a text or a reason is empty"
        return
    if (right := sum("right" in option for option in options)) != 1:
        yield f"exactly one option must be right, not {right}"
    if len({option["text"] for option in options}) < len(options):
        yield "two options have the same text"
    if len({option["reason"] for option in options}) < len(options):
        yield "two options have the same reason"
    if any("`" in option["text"] or len(option["text"]) > 80 for option in options):
        yield "the text of an option has to fit on a button: at most 80 characters, and no backticks"


def _rows(root: Path, lesson: Lesson) -> Found:
    row = next((row for row in course(root / "notebooks") if row["lesson"] == lesson.name), None)
    if row:
        number = lesson.name[:2]
        link = f"[{row['title']}](notebooks/{lesson.name}.ipynb)"
        line = f"| {number} | {link} | {row['question']} | {row['minutes']} |"
        if line not in (root / "README.md").read_text(encoding="utf-8").splitlines():
            yield "README.md", f"its table of lessons needs the line {line}"
        page = (root / "classroom" / "GRADING.md").read_text(encoding="utf-8")
        points = next((line for line in page.splitlines() if line.startswith(f"| {number} |")), "")
        if re.findall(r"(\d+\.\d+):", points) != [exercise.number for exercise in lesson.exercises]:
            yield "classroom/GRADING.md", "its table of points is old: python classroom/assignment.py --points"
        times = json.loads((root / "data" / "results" / "lesson_times.json").read_text(encoding="utf-8"))
        if lesson.name not in times["seconds"]:
            yield "data/results/lesson_times.json", f"has no seconds for {lesson.name}: make lesson-times"


def _teaching(root: Path, lesson: Lesson) -> Found:
    text, number = (root / "TEACHING.md").read_text(encoding="utf-8"), lesson.name[:2]
    row = next((row for row in course(root / "notebooks") if row["lesson"] == lesson.name), None)
    if not row:
        return
    if f"\n| {number} {row['title']} | {row['minutes']} | " not in text:
        yield (
            "TEACHING.md",
            f"the glance needs a row | {number} {row['title']} | {row['minutes']} | seconds | needs | … |",
        )
    heading = f"### {number} · {row['title']} ({row['minutes']} minutes)"
    if f"\n{heading}\n" not in text:
        yield "TEACHING.md", f"add the section {heading}"
        return
    section = re.split(r"^##", text.partition(f"\n{heading}\n")[2], flags=re.MULTILINE)[0]
    parts = [part for part in TEACHING_PARTS if lesson.exercises or part != "Ask"]
    if (there := re.findall(r"^\*\*(\w+)\.\*\*", section, re.MULTILINE)) != parts:
        yield "TEACHING.md", f"the section {number} has to have the parts {', '.join(parts)}, it has {', '.join(there)}"
    asked = section.partition("**Ask.**")[2].partition("**Show.**")[0]
    if lesson.exercises and len(re.findall(r"^- \*[^*]+[?.]\*\s+\S", asked, re.MULTILINE)) != 3:
        yield (
            "TEACHING.md",
            f"in section {number} ask three questions, each in italics and with the answers people give",
        )


def _editions(root: Path, lesson: Lesson) -> Found:
    source = root / "notebooks" / "sources" / f"{lesson.name}.py"
    for edition in build.EDITIONS:
        path = build.notebook_of(source, edition)
        file, again = path.relative_to(root).as_posix(), f'make notebooks ARGS="{lesson.name[:2]}"'
        if not path.exists():
            yield file, f"is missing: {again}"
            continue
        notebook = nbformat.read(path, as_version=4)
        if not build.in_step(notebook, build.build(source, edition)):
            yield file, f"is out of step with its source: {again}"
        yield from ((file, f"{complaint}: {again}") for complaint in build.complaints(notebook))
        yield from ((file, fault) for fault in accessible.faults(notebook))


def _days(root: Path, lesson: Lesson) -> Found:
    """Whether the day of the last change is that of what the lesson says now, in each language."""
    notebooks, number = root / "notebooks", lesson.name[:2]
    said: dict[str, tuple[Sequence[Cell], str]] = {lesson.name: (lesson.cells, f'make notebooks ARGS="{number}"')}
    for language, path in translation.translations(notebooks / "sources"):
        if path.stem == lesson.name:
            said[f"{language}/{lesson.name}"] = translation.said(path), "make translations"
    table = about.table_of(notebooks)
    for name, (cells, again) in said.items():
        built = (notebooks / f"{name}.ipynb").exists()  # before, there is no day
        if built and (name not in table or table[name].fingerprint != about.fingerprint(cells)):
            yield "notebooks/dates.csv", f"{name} has changed since its last day: {again}"


def _translations(root: Path, lesson: Lesson) -> Found:
    for language, path in translation.translations(root / "notebooks" / "sources"):
        if path.stem == lesson.name:
            file = path.relative_to(root).as_posix()
            yield from ((file, what) for what in translation.out_of_step(lesson, path))
            if (built := root / "notebooks" / language / f"{lesson.name}.ipynb").exists():
                notebook = nbformat.read(built, as_version=4)
                yield from ((built.relative_to(root).as_posix(), fault) for fault in accessible.faults(notebook))


def main() -> int:
    """Look at what the command line asks for; 1 when something is lacking."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("numbers", nargs="*", help="lessons by number, for instance 01 03; all by default")
    parser.add_argument("--minutes", action="store_true", help="print how much of each lesson is not reading")
    arguments = parser.parse_args()
    if arguments.minutes:
        print(shares())
        return 0
    numbers = arguments.numbers
    try:
        chosen = build.sources(numbers)
    except ValueError as error:
        parser.error(str(error))
    found = [line for source in chosen for line in lacks(source)]
    if reference.reference(build.HERE / "sources").text() != reference.REFERENCE.read_text(encoding="utf-8"):
        found.append("data/reference/adapters.py: is out of step with the solutions: make notebooks")
    named = {source.stem for source in chosen} if numbers else {row["lesson"] for row in course(build.HERE)}
    found += [f"notebooks/course.csv: {name} has no source" for name in sorted(named - {s.stem for s in chosen})]
    print("\n".join(found) or "the lessons lack nothing")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
