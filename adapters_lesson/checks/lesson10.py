"""The exercises of lesson 10: labels on the answer, filling rows, who may look at whom, and bytes between machines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from .matching import number
from .report import Mistake, check, require

_PROMPT, _ANSWER, _END = [11, 12, 13, 14], [21, 22, 23], 2


@check("10.1", "correct: only the answer counts, and the token that ends it.")
def check_labels(make_labels: Any) -> None:
    """``make_labels(prompt, answer, end, pad, length)`` must give token ids and labels, both ``length`` long."""
    for pad, length in ((0, 11), (_END, 11), (0, 8)):  # in SmolLM2 the padding is the end token
        prompt, answer = list(_PROMPT), list(_ANSWER)
        pair = make_labels(prompt, answer, _END, pad, length)
        require(pair is not None, "the function returns None: is the return missing?")
        require(
            (prompt, answer) == (_PROMPT, _ANSWER),
            "the prompt or the answer was changed in place (+= and append do that): other rows may need them, make new lists",
        )
        require(
            isinstance(pair, (tuple, list))
            and len(pair) == 2
            and all(isinstance(p, Sequence) or getattr(p, "ndim", 0) == 1 for p in pair),
            "it must return two lists, the token ids and the labels",
        )
        _check_ids(_whole(pair[0], "token ids"), pad, length)
        _check_labels(_whole(pair[1], "labels"), pad, length)


def _whole(values: Any, what: str) -> list[int]:
    """The values as whole numbers, from a list, a tensor or an array."""
    for value in values:
        require(
            getattr(value, "ndim", 0) == 0 and not isinstance(value, (str, list, tuple)) and value is not None,
            f"among the {what} there is {value!r}: they are numbers, and -100 is the label of what does not count",
        )
    return [int(value) for value in values]


def _check_ids(ids: list[int], pad: int, length: int) -> None:
    whole = [*_PROMPT, *_ANSWER, _END]
    padding = [pad] * (length - len(whole))
    wrong_ids = [
        (_PROMPT + _ANSWER + [pad] * (length - 7), "the end token is missing after the answer: the model would never learn to stop"),
        (padding + whole, "the padding stands on the left: for training it goes to the end, behind everything that a causal model looks at"),
        (whole + [-100] * len(padding), "-100 is a label, no token: pad input_ids with `pad`"),
    ]  # fmt: skip
    require(
        ids[:4] != [*_ANSWER, _END],
        "the prompt is missing from the token ids: it does not count, but the model must read it",
    )
    if padding or pad == _END:
        wrong_ids.append(
            (whole, f"the rows must be {length} tokens long, this one has {len(whole)}: the padding is missing")
        )
        for wrong, message in wrong_ids:
            require(ids != wrong or ids == whole + padding, message)
    require(
        len(ids) == length,
        f"there are {len(ids)} token ids, there should be {length}: prompt, answer, end token, and padding up to `length`",
    )
    require(
        ids == whole + padding,
        f"for the prompt {_PROMPT}, the answer {_ANSWER}, end {_END} and padding {pad} the token ids should be {whole + padding}, not {ids}",
    )


def _check_labels(labels: list[int], pad: int, length: int) -> None:
    rest = length - 8
    right = [-100] * 4 + [*_ANSWER, _END] + [-100] * rest
    ids = [*_PROMPT, *_ANSWER, _END] + [pad] * rest
    require(
        len(labels) == length,
        f"there are {len(labels)} labels for {length} tokens: each token needs one, -100 where it does not count",
    )
    wrong_labels = [
        (ids, "everything counts: the model would learn to write questions and padding too, use -100 there"),
        ([*_PROMPT, *_ANSWER, _END] + [-100] * rest, "the prompt counts as well: the model would learn to ask questions, use -100 there"),
        ([*_PROMPT] + [-100] * (length - 4), "the prompt counts and the answer does not: it is the other way round"),
        ([0] * 4 + [*_ANSWER, _END] + [0] * rest, "0 is a token like any other: what does not count is -100"),
        ([pad] * 4 + [*_ANSWER, _END] + [pad] * rest, "the padding token is a token like any other: what does not count is -100"),
        ([-100] * 4 + _ANSWER + [-100] * (rest + 1), "the end token does not count, so the model would never learn to stop: where padding and end are the same token, go by the place and not by the number"),
        ([-100] * 4 + [*_ANSWER, _END] + [pad] * rest, "the padding counts: use -100 there"),
        ([-100] * 4 + [*_ANSWER, _END] + [0] * rest, "the padding counts: use -100 there"),
        ([-100] * 3 + [*_ANSWER, _END] + [-100] * (rest + 1), "the labels are shifted by one to the left: each stands at its own token, the model does the shift itself"),
        ([-100] * 5 + ([*_ANSWER, _END] + [-100] * rest)[: length - 5], "the labels are shifted by one to the right: each stands at its own token"),
        ([-100] * 3 + [_PROMPT[-1], *_ANSWER, _END] + [-100] * rest, "the last token of the prompt counts: the answer begins one later"),
        ([-100] * 5 + [*_ANSWER[1:], _END] + [-100] * rest, "the first token of the answer does not count: the model predicts it from the end of the prompt"),
        (ids[1:] + [-100], "the labels are the next tokens: each stands at its own token, the model does the shift itself"),
    ]  # fmt: skip
    for wrong, message in wrong_labels:
        require(labels != wrong or labels == right, message)
    require(labels == right, f"the labels should be {right}, not {labels}")


@check("10.2", "correct: every text whole, and no more rows than are needed.")
def check_fill(fill: Any) -> None:
    """``fill(lengths, room)`` must put whole texts into few rows: lists of their numbers."""
    for lengths, room in (([4, 6, 3, 7, 5, 5], 10), ([3, 8, 3, 3, 8, 5], 10), ([2, 6, 4, 2, 5, 3, 8], 10), ([9], 9)):
        given = list(lengths)
        rows = fill(given, room)
        require(rows is not None, "the function returns None: is the return missing?")
        require(
            given == lengths, "the list of lengths was changed in place (sort and pop do that): use sorted(…) or a copy"
        )
        require(
            isinstance(rows, (list, tuple)) and all(isinstance(row, (list, tuple)) for row in rows),
            "it must return a list of rows, each a list of the numbers of its texts",
        )
        _check_rows([[int(i) for i in row] for row in rows], lengths, room)


def _check_rows(rows: list[list[int]], lengths: list[int], room: int) -> None:
    numbers = sorted(i for row in rows for i in row)
    require(all(rows), "one of the rows is empty: start a row when there is a text to put in")
    if numbers != list(range(len(lengths))):
        require(
            numbers != sorted(lengths),
            "the rows hold the lengths: return the numbers of the texts, their places in `lengths`",
        )
        require(numbers != list(range(1, len(lengths) + 1)), "the texts are counted from 1: their numbers begin with 0")
        missing = [i for i in range(len(lengths)) if i not in numbers]
        require(not missing, f"text {missing[0] if missing else ''} is in no row: every text goes into exactly one")
        require(False, "a text is in more than one row: every text goes into exactly one")
    sums = [sum(lengths[i] for i in row) for row in rows]
    too_long = [i for i, total in enumerate(sums) if total > room]
    if too_long:
        by_size = sorted(lengths, reverse=True)
        upward = sorted(lengths)
        require(
            not any(all(sum(order[i] for i in row) <= room for row in rows) for order in (by_size, upward)),
            "the rows hold places in the sorted list: sort the numbers of the texts by length, not the lengths themselves",
        )
        require(
            False,
            f"row {rows[too_long[0]]} has {sums[too_long[0]]} tokens, there is room for {room}: look whether a text still fits",
        )
    fewest = len(_first_fit(lengths, room, longest_first=True))
    if len(rows) > fewest:
        own = f"{len(rows)} rows for {lengths} with room for {room}, {fewest} are enough: "
        require(len(rows) < len(lengths), own + "each text has a row of its own, put more into one")
        require(
            sorted(map(sorted, rows))
            != sorted(map(sorted, _first_fit(lengths, room, strict=True, longest_first=True))),
            own + "a row may be exactly full, compare with <= and not with <",
        )
        require(
            sorted(map(sorted, rows)) != sorted(map(sorted, _first_fit(lengths, room, shortest_first=True))),
            own + "the shortest texts come first: take the longest first, the short ones fill the gaps",
        )
        require(
            sorted(map(sorted, rows)) != sorted(map(sorted, _next_fit(lengths, room))),
            own + "only the last row is looked at, try the earlier ones too",
        )
        require(
            sorted(map(sorted, rows)) != sorted(map(sorted, _first_fit(lengths, room))),
            own + "take the longest texts first, the short ones fill the gaps",
        )
        require(False, own + "longest text first, each into the first row with room for it")


def _first_fit(
    lengths: list[int], room: int, *, longest_first: bool = False, shortest_first: bool = False, strict: bool = False
) -> list[list[int]]:
    rows: list[list[int]] = []
    order = sorted(range(len(lengths)), key=lambda i: lengths[i] * (shortest_first - longest_first))
    for i in order:
        for row in rows:
            total = sum(lengths[j] for j in row) + lengths[i]
            if total < room or (total == room and not strict):
                row.append(i)
                break
        else:
            rows.append([i])
    return rows


def _next_fit(lengths: list[int], room: int) -> list[list[int]]:
    rows: list[list[int]] = []
    for i, length in enumerate(lengths):
        if rows and sum(lengths[j] for j in rows[-1]) + length <= room:
            rows[-1].append(i)
        else:
            rows.append([i])
    return rows


@check("10.3", "correct: back in its own dialogue, and nowhere else.")
def check_looking(may_look: Any) -> None:
    """``may_look(position_ids)`` must give a matrix: row i says at which tokens token i may look."""
    for lengths in ((3, 2, 4), (5,), (1, 1, 3)):
        positions = torch.tensor([place for length in lengths for place in range(length)])
        given = positions.clone()
        answer = may_look(given)
        require(answer is not None, "the function returns None: is the return missing?")
        require(isinstance(answer, torch.Tensor), f"it must return a tensor, not a {type(answer).__name__}")
        require(torch.equal(given, positions), "position_ids was changed in place: make a new tensor")
        size = len(positions)
        require(
            answer.shape == (size, size),
            f"for {size} tokens the matrix must be {size} × {size}, yours is {' × '.join(map(str, answer.shape)) or 'a number'}",
        )
        require(
            not answer.is_floating_point() or bool(((answer == 0) | (answer == 1)).all()),
            "return True and False: numbers to be added to the scores come later",
        )
        _check_matrix(answer.bool(), positions)


_Rule = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def _check_matrix(answer: torch.Tensor, positions: torch.Tensor) -> None:
    place = torch.arange(len(positions))
    dialogue = (positions == 0).cumsum(0)
    i, j = place[:, None], place[None]
    own = dialogue[:, None] == dialogue[None]
    late = torch.cat([dialogue[:1], dialogue[:-1]])  # as if a dialogue began one token later
    right = own & (j <= i)
    wrong_matrices = [
        (j <= i, "a token may look back into other dialogues: only where both belong to the same one"),
        (own, "a token may look ahead in its own dialogue: it would read the word that it has to predict"),
        (own & (j < i), "no token may look at itself: it needs to, j <= i and not j < i"),
        (right.T, "the matrix is transposed: row i says at what token i may look, and that is what came before"),
        (~right, "True and False are exchanged: True is where token i may look"),
        (torch.ones_like(right), "every token may look everywhere"),
        (positions[None] <= positions[:, None], "positions repeat from dialogue to dialogue, so comparing them does not tell dialogues apart: count the zeros"),
        ((positions[None] <= positions[:, None]) & (j <= i), "positions repeat from dialogue to dialogue, so comparing them does not tell dialogues apart: count the zeros"),
        (right & (i - j <= 1), "a token may look one step back only: it may look back to the beginning of its dialogue"),
        (right & (dialogue[:, None] == 1), "only the first dialogue is there: each has tokens that may look back in it"),
        (i == j, "each token looks at itself only: it may look back to the beginning of its dialogue"),
        ((late[:, None] == late[None]) & (j <= i), "a dialogue begins one token too late: position 0 belongs to the new one"),
        ((dialogue[None] <= dialogue[:, None]), "earlier dialogues are visible, and the later tokens of its own: the same dialogue, and j <= i"),
    ]  # fmt: skip
    for wrong, message in wrong_matrices:
        require(not torch.equal(answer, wrong) or torch.equal(wrong, right), message)
    if not torch.equal(answer, right):
        a, b = (answer != right).nonzero()[0].tolist()
        word = "may not" if right[a, b] else "may"
        require(
            False,
            f"for positions {positions.tolist()} token {a} {word} look at token {b}: it should be the other way round",
        )


@check("10.4", "correct: nearly twice the gradients, however many processes there are.")
def check_bytes(sent_bytes: Any) -> None:
    """``sent_bytes(trained, processes)`` must give the bytes that each process sends to average gradients in a ring."""
    cases = [(1000, 2), (1_124_160, 4), (134_515_008, 8), (600, 3)]
    answers = [number(sent_bytes(*case)) for case in cases]

    def matches(formula: Callable[[float, float], float]) -> bool:
        return all(
            abs(a - formula(*case)) <= 1e-6 * abs(formula(*case)) for a, case in zip(answers, cases, strict=True)
        )

    wrong_counts: list[tuple[Callable[[float, float], float], str]] = [
        (lambda p, n: 2 * (n - 1) / n * p, "those are numbers, not bytes: a gradient in single precision takes 4"),
        (lambda p, n: 32 * 2 * (n - 1) / n * p, "those are bits: a gradient in single precision takes 4 bytes"),
        (lambda p, n: 8 * 2 * (n - 1) / n * p, "a gradient in single precision takes 4 bytes, not 8: it is sent, not the optimiser's state"),
        (lambda p, n: 4 * (n - 1) / n * p, "that is one time round: the sums have to go round a second time, so that everyone has them"),
        (lambda p, n: 4 * p, "that is the size of the gradients: in a ring N pieces of them go round twice, N − 1 rounds each (or does a // round down?)"),
        (lambda p, n: 8 * p, "in each of the two times there are N − 1 rounds, not N: the last one would bring the piece back"),
        (lambda p, n: 4 * p / n, "that is one piece, sent once: there are 2·(N − 1) rounds"),
        (lambda p, n: 8 * p / n, "that is two pieces: there are 2·(N − 1) rounds, with a piece in each"),
        (lambda p, n: 4 * p * (n - 1), "that is everyone sending all gradients to everyone: in a ring only a piece, a part of 1 / N, goes on in each round"),
        (lambda p, n: 8 * p * (n - 1), "in each round only a piece goes on, a part of 1 / N of the gradients; or did you count for all processes? It is asked for one"),
        (lambda p, n: 4 * p * n, "everyone's gradients counted once: count what one process sends, round by round"),
        (lambda p, n: 2 * (n - 1) / n * 4 * p / 1e6, "those are megabytes: return bytes"),
        (lambda p, n: 2 * n / (n - 1) * 4 * p, "upside down: 2·(N − 1) rounds, a piece of 1 / N in each"),
    ]  # fmt: skip
    for wrong, message in wrong_counts:
        require(not matches(wrong), message)
    trained, processes = cases[0]
    right = 2 * (processes - 1) / processes * 4 * trained
    require(
        matches(lambda p, n: 2 * (n - 1) / n * 4 * p),
        f"for {trained} trained parameters and {processes} processes it gives {answers[0]:.6g}, it should be {right:.0f}: "
        "2·(N − 1) rounds, with a piece of 1 / N of the gradients in each",
    )
    require(
        abs(_alone(sent_bytes)) < 1e-9,
        "one process alone has nobody to send to: for 1 it must be 0",
    )


def _alone(sent_bytes: Any) -> float:
    try:
        return number(sent_bytes(1000, 1))
    except ZeroDivisionError as error:
        raise Mistake("for one process it divides by zero: it sends nothing, 2·(N − 1) rounds are none") from error
