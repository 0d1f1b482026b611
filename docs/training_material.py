"""What a page says of itself to programs that collect teaching material: schema.org's JSON-LD in Bioschemas' profile.

A lesson's words come from its row in course.csv and from its frame, those of all lessons from CITATION.cff. Addresses
are relative to the page, because the site does not know where it stands.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from adapters_lesson.course.lesson_source import course, read_lesson

ROOT = Path(__file__).parents[1]
PROFILE = "https://bioschemas.org/profiles/TrainingMaterial/1.0-RELEASE"
ARXIV = re.compile(r"arXiv[\s:]+(\d{4}\.\d{4,5})")
KNOWN = ["Python", "PyTorch: tensors, nn.Module and a training loop"]
SUBJECT = {"@type": "DefinedTerm", "@id": "http://edamontology.org/topic_3474", "name": "Machine learning"}


def material(lesson: str = "") -> dict[str, Any]:
    """The description of a lesson, for instance "01_the_bottleneck", or without a name that of the whole course."""
    cited, rows = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8")), course()
    texts = {row["lesson"]: read_lesson(ROOT / "notebooks" / f"{row['lesson']}.ipynb").text for row in rows}
    chosen = [row for row in rows if row["lesson"] == lesson] if lesson else rows
    about: dict[str, Any] = {"name": cited["title"], "description": cited["abstract"], "abstract": cited["abstract"]}
    name, url, required = cited["title"].partition(":")[0], "index.html", KNOWN
    if lesson:
        (row,) = chosen
        whole = {"@type": "LearningResource", "@id": url, "name": name, "url": url}
        url, required = f"{lesson}.html", [_part(texts[lesson], "Before you start.")]
        question = f"{row['question'][0].upper()}{row['question'][1:]}"
        about = {"name": f"{lesson[:2]} · {row['title']}", "isPartOf": whole}
        about |= {"description": f"A lesson of the course “{name}”. {question}", "abstract": question}
    else:
        about["hasPart"] = [
            {"@type": "LearningResource", "name": row["title"], "url": f"{row['lesson']}.html"} for row in rows
        ]
    papers = sorted({number for row in chosen for number in ARXIV.findall(texts[row["lesson"]])})
    return {
        "@context": "https://schema.org",
        "@type": "LearningResource",
        "@id": url,
        "http://purl.org/dc/terms/conformsTo": {"@type": "CreativeWork", "@id": PROFILE},
        **about,
        "about": [SUBJECT, *({"@type": "Thing", "name": word} for word in cited["keywords"])],
        "audience": {"@type": "Audience", "audienceType": "students and engineers"},
        "author": [_author(one) for one in cited["authors"]],
        "competencyRequired": required,
        "educationalLevel": "intermediate",
        "identifier": f"adapters-lesson/{lesson or 'course'}",
        "inLanguage": "en",
        "keywords": cited["keywords"],
        "learningResourceType": ["lesson" if lesson else "course", "Jupyter notebook"],
        "license": [f"https://spdx.org/licenses/{one}" for one in cited["license"]],
        "mentions": [
            {"@type": "ScholarlyArticle", "name": f"arXiv {number}", "url": f"https://arxiv.org/abs/{number}"}
            for number in papers
        ],
        "teaches": [_part(texts[row["lesson"]], "You will be able to") for row in chosen],
        "timeRequired": f"PT{sum(int(row['minutes']) for row in chosen)}M",
        "url": url,
        "version": cited["version"],
    }


def _part(text: str, name: str) -> str:
    """What a lesson's frame says behind a bold name, as one plain sentence."""
    said = text.partition(f"**{name}**")[2].partition("\n\n")[0]
    return " ".join(re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", said).replace("`", "").replace("*", "").split())


def _author(one: dict[str, str]) -> dict[str, str]:
    """An entry of CITATION.cff: a person has a family name, whatever else has a name."""
    if "family-names" not in one:
        return {"@type": "Organization", "name": one["name"]}
    return {"@type": "Person", "name": f"{one.get('given-names', '')} {one['family-names']}".strip()}


def script(lesson: str = "") -> str:
    """The description as the element that a page carries in its head; nothing in it can end that element."""
    text = json.dumps(material(lesson), ensure_ascii=False).replace("</", "<\\/")
    return f'<script type="application/ld+json">{text}</script>'
