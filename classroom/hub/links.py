"""Links that bring the lessons into a learner's folder and open one: `python classroom/hub/links.py HUB REPOSITORY`.

They are nbgitpuller's: a click clones the repository, a later click fetches what is new in it. What the learner has
changed stays as it is; where both changed the same lines the learner's count.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from urllib.parse import urlencode

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"


def link(hub: str, repository: str, branch: str, lesson: str, folder: str = "adapters-lesson") -> str:
    """The link to a lesson, for instance "01_the_bottleneck". It works for every learner: the hub fills in who clicks.

    ``folder`` is the repository's place in the learner's home.
    """
    wanted = {
        "repo": repository,
        "branch": branch,
        "targetpath": folder,
        "urlpath": f"lab/tree/{folder}/notebooks/{lesson}.ipynb",
    }
    return f"{hub.rstrip('/')}/hub/user-redirect/git-pull?{urlencode(wanted)}"


def main() -> None:
    """Print the links to all lessons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("hub", metavar="HUB", help="the hub's address, for instance https://hub.example.org")
    parser.add_argument(
        "repository", metavar="REPOSITORY", help="an address that learners may clone without a password"
    )
    parser.add_argument("--branch", default="main", help="(default: %(default)s)")
    arguments = parser.parse_args()
    with (NOTEBOOKS / "course.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            print(f"{row['title']}\n  {link(arguments.hub, arguments.repository, arguments.branch, row['lesson'])}")


if __name__ == "__main__":
    main()
