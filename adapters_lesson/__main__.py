"""The command line: `python -m adapters_lesson start`, `train`, `predict` or `check`; each knows `--help`."""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

COMMANDS = {"start": "start", "train": "train_command", "predict": "predict_command", "check": "checkup"}


class Parser(argparse.ArgumentParser):
    """Refuses in one sentence, once on each machine."""

    def error(self, message: str) -> NoReturn:
        if os.environ.get("LOCAL_RANK", "0") == "0":
            print(f"{self.prog.split()[-1]}: {message}", file=sys.stderr)
        sys.exit(2)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command, of which alone the module is imported; returns the exit status."""
    command = argparse.ArgumentParser("python -m adapters_lesson", description=__doc__, add_help=False)
    command.add_argument("command", choices=COMMANDS, nargs="?")
    words = list(sys.argv[1:] if argv is None else argv)
    name = command.parse_args(words[:1] if words[:1] not in (["-h"], ["--help"]) else []).command
    if name is None:
        command.print_help()
        return 0
    module = import_module(f"adapters_lesson.course.{COMMANDS[name]}")
    parser = Parser(f"{command.prog} {name}", formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.description, parser.epilog = module.__doc__, getattr(module, "EPILOG", None)
    module.add_arguments(parser)
    parser.set_defaults(words=words)
    arguments, rest = parser.parse_known_args(words[1:])
    if hasattr(arguments, "jupyter"):  # `start` passes on what it does not know
        arguments.jupyter = rest
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return module.run(arguments)


if __name__ == "__main__":
    sys.exit(main())
