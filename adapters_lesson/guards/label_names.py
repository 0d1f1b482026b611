"""The names of a task's labels: texts in the order of the classes, which a file can hold and bring back equal."""

import re
from collections.abc import Mapping, Set
from typing import Any

from torch import nn

from .plain_values import listed, shown, whole_number


def check_labels(labels: Any) -> tuple[str, ...]:
    """The names of ``labels``, which are how many there are, or their names. Raises ValueError for anything else."""
    count = whole_number(labels)
    if count is not None and count > 1_000_000:
        raise ValueError(f"a task needs at most 1,000,000 labels, not {count}")
    given = None if isinstance(labels, Set) else listed(labels)  # the order of a set is another in every run
    given = given if count is None else [str(number) for number in range(count)]
    if given is None or len(given) < 2:
        mend = 'give their number or their names in the order of the classes, 2 or ["negative", "positive"]'
        raise ValueError(f"a task needs at least 2 labels, not {shown(labels)} ({type(labels).__name__}): {mend}")
    for place, name in enumerate(given):
        if not isinstance(name, str) or not name.strip():
            mend = f"give texts, {list(map(str, range(len(given))))!s:.60}, or only their number, {len(given)}"
            raise ValueError(f"label {place} is {shown(name)} ({type(name).__name__}), and not a name: {mend}")
    names = tuple(str.__str__(name).strip() for name in given)  # a NumPy text becomes a plain one
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{names.count(twice)} labels are called {shown(twice)}: give each class a name of its own")
    return names


def labels_of(model: nn.Module, name: str = "default") -> tuple[str, ...] | None:
    """The names that somebody gave the labels of ``model``: of an ``AdapterBank``, those of the task ``name``.

    None where the labels have numbers alone ("0", "LABEL_0"), or the model has no head that they could belong to.
    """
    found: Any = getattr(model, "labels", None)
    if isinstance(found, Mapping):
        found = found.get(name)
    elif found is None and hasattr(model, "num_labels"):  # a base model has an id2label as well, but nothing to name
        by_id = getattr(getattr(model, "config", None), "id2label", None) or {}
        found = [by_id[key] for key in sorted(by_id, key=int)] if len(by_id) == model.num_labels else None
    if not isinstance(found, (list, tuple)) or all(re.fullmatch(r"(LABEL_)?\d+", str(label)) for label in found):
        return None
    return tuple(map(str, found))


def set_labels(model: Any, labels: tuple[str, ...]) -> list[str]:
    """Give the head of ``model`` the names of its labels that came with it. Says so if others were there."""
    before = labels_of(model)
    if isinstance(getattr(model, "labels", None), (list, tuple)):
        model.labels = type(model.labels)(labels)
    elif getattr(model, "num_labels", None) == len(labels):
        model.config.id2label = dict(enumerate(labels))
        model.config.label2id = {label: i for i, label in enumerate(labels)}
    return [] if before in (None, labels) else [f"its labels {labels} take the place of {before}"]
