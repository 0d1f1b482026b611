"""What the doctor finds: a sentence, a place and a remedy for each trouble, the likeliest cause of the whole first."""

import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

# In the order in which one explains the others: whoever has lost the file need not look at the learning rate.
TROUBLES = (
    "no adapter", "empty", "whole model", "keys", "base", "tokens", "inactive", "merged", "not finite", "checkpointing",
    "frozen", "optimiser", "learning rate", "zero", "gradient", "half precision", "head", "unfrozen",
)  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """One trouble: what it is in one sentence, the place, and what mends it. ``trouble`` is one of ``TROUBLES``."""

    trouble: str
    what: str
    where: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}\n   where:  {self.where}\n   remedy: {self.remedy}"


@dataclass(frozen=True)
class Diagnosis:
    """All findings, the likeliest cause first; ``looked_at`` says what was examined. Without findings it is false."""

    findings: tuple[Finding, ...]
    looked_at: str

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def __len__(self) -> int:
        return len(self.findings)

    def __str__(self) -> str:
        said = [f"{number}. {finding}" for number, finding in enumerate(self.findings, 1)] or ["Nothing is wrong here."]
        lines = "\n".join([*said, f"Looked at: {self.looked_at}"]).splitlines()
        return "\n".join(textwrap.fill(one, 110, subsequent_indent=" " * 11, break_long_words=False) for one in lines)

    __repr__ = __str__


def diagnosis(findings: Iterable[Finding], looked_at: str) -> Diagnosis:
    """The findings in the order of ``TROUBLES``, one for each."""
    first = {finding.trouble: finding for finding in reversed(list(findings))}
    return Diagnosis(tuple(first[trouble] for trouble in TROUBLES if trouble in first), looked_at)


def some(names: Iterable[str]) -> str:
    """Up to three of the names, and how many more there are."""
    names = list(dict.fromkeys(names))
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
