"""`python -m adapters_lesson.train`, also under `accelerate launch`: the command line of ``command``."""

import sys

if __name__ == "adapters_lesson.train":  # imported, it would take the place of the function of that name
    raise ImportError("adapters_lesson.train is to be run: python -m adapters_lesson.train")

from adapters_lesson.command import main

if __name__ == "__main__":
    sys.exit(main())
