"""Links, headings and anchors of Markdown texts, as GitHub and MyST understand them."""

import re

_CODE = re.compile(r"^(`{3,}|~{3,}).*?^\1`*$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(
    r"\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)|^\[[^\]]+\]:\s*(\S+)|(?:href|src)=\"([^\"]+)\"", re.MULTILINE
)


def without_code(text):
    """The text without fenced code and without inline code's content."""
    return re.sub(r"`[^`\n]+`", "`code`", _CODE.sub("", text))


def links(text):
    """Where the links and pictures of a text lead."""
    return [next(filter(None, groups)) for groups in _LINK.findall(without_code(text))]


def headings(text):
    """(level, title) of each heading, in order."""
    return [
        (len(marks), title) for marks, title in re.findall(r"^(#{1,6}) +(.+?)\s*$", _CODE.sub("", text), re.MULTILINE)
    ]


def anchors(text):
    """The anchors that a text's headings get; a second one of the same title ends in -1."""
    found = []
    for _, title in headings(text):
        title = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title)
        slug = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        found.append(slug if slug not in found else f"{slug}-{sum(a.rstrip('-0123456789') == slug for a in found)}")
    named = re.findall(r"^\(([\w-]+)\)=$|(?:id|name)=\"([^\"]+)\"", text, re.MULTILINE)
    return {*found, *filter(None, sum(named, ()))}


def jumps(levels):
    """The headings that are more than one level below the one before, as (before, level)."""
    return [(before, level) for before, level in zip([0, *levels], levels, strict=False) if level > before + 1]
