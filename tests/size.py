"""How many lines the package has, by room: `make size`. tests/test_size.py holds the limits."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "adapters_lesson"
LIBRARY = "library"


def lines(path):
    return len(path.read_text(encoding="utf-8").splitlines())


def rooms():
    """Lines by room: the library is the root, everything in course counts by its folder."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        *folders, _ = path.relative_to(PACKAGE).parts
        room = "/".join(folders[:2]) or LIBRARY
        found[room] = found.get(room, 0) + lines(path)
    return found


def longest(count=5):
    """The longest files with their lines, longest first."""
    files = {str(path.relative_to(ROOT)): lines(path) for path in PACKAGE.rglob("*.py")}
    return sorted(files.items(), key=lambda item: -item[1])[:count]


if __name__ == "__main__":
    for room, count in [*rooms().items(), ("the package", sum(rooms().values()))]:
        print(f"{count:8,}  {room}")
    print(f"{sum(map(lines, (ROOT / 'tests').rglob('*.py'))):8,}  the tests")
    print("longest:", ", ".join(f"{path} {count}" for path, count in longest()))
