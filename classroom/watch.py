"""What keeps a hand-in out of the class's folder: its source runs as the first cell of every kernel that grades.

`make assignment` copies this file beside grading.py, which uses it.
"""


def keep_out(root: str, inside: str, notes: str) -> None:
    """Refuse, and note, whatever touches what the class keeps, but for the hand-in's own folder. It cannot be undone.

    It also notes which checks are no longer the course's, when `sys.audit("adapters_lesson.checks", globals())` asks.

    Python itself asks before it opens, lists, moves or links a file, and before it starts a program (PEP 578). What a
    program does, or code below Python, it cannot know: against those only another user or a container helps.

    Args:
        root: the class's folder.
        inside: the hand-in's own folder.
        notes: a file, to which the refused paths are added.
    """
    import inspect
    import os
    import re
    import sys
    from pathlib import Path
    from types import CodeType

    kept = [root + os.sep + name for name in ("source", "submitted", "autograded", "feedback", "gradebook.db")]
    note = os.open(notes, os.O_WRONLY | os.O_APPEND)
    programs = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn"}
    files = {"open", "sqlite3.connect", "os.listdir", "os.scandir", "os.chdir", "os.rename", "os.remove", "os.link"}
    files |= {"os.symlink", "os.rmdir", "os.mkdir", "os.chmod", "os.truncate"}

    def is_theirs(path: object) -> bool:
        if not isinstance(path, (str, bytes, os.PathLike)):
            return False  # a file descriptor, or None
        real = os.path.realpath(os.fsdecode(path))
        below = [folder for folder in (*kept, inside) if (real + os.sep).startswith(folder + os.sep)]
        return bool(below) and inside not in below

    def changed(names: dict) -> list[str]:
        """The checks that are no longer what their module's file says."""
        package = "adapters_lesson.course.checks."
        theirs = {name: it for name, it in sys.modules.items() if name.startswith(package)}
        ways_in = {str(it.__file__) for it in theirs.values()}
        found = []
        for module in theirs.values():
            source = Path(str(module.__file__)).read_text(encoding="utf-8")
            for code in compile(source, str(module.__file__), "exec", dont_inherit=True).co_consts:
                if isinstance(code, CodeType) and code.co_name.startswith("check_"):
                    live = getattr(module, code.co_name, None)
                    first, last = (getattr(it, "__code__", None) for it in (live, inspect.unwrap(live or len)))
                    if last != code or getattr(first, "co_filename", "") not in ways_in:
                        found.append(code.co_name)
        checks = names.get("checks")
        if any(name.startswith("check_") for name in dir(checks)) and checks not in theirs.values():
            found.append("checks")
        return found

    def ask(event: str, arguments: tuple) -> None:
        if event == "adapters_lesson.checks":
            found = changed(*arguments)
            os.write(note, "".join(f"changed: {name}\n" for name in found).encode())
            return
        if event in files:
            found = [path for path in arguments if is_theirs(path)]
        elif event in programs:
            said = str(arguments[: 2 if event in ("os.exec", "os.posix_spawn") else 3])  # not the environment
            found = [said] if root in said.replace(inside, "") or re.search(r"(?<![\w.])\.\.(?![\w.])", said) else []
        else:
            return
        if found:
            os.write(note, (str(found[0]).replace("\n", " ") + "\n").encode())
            raise PermissionError(f"a hand-in may not touch what the class keeps: {found[0]}")

    sys.addaudithook(ask)
