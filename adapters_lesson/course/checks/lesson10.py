"""The exercises of lesson 10: labels on the answer, filling rows, who may look at whom, and bytes between machines."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from .check import Mistake, check, require
from .comparison import BYTES, asked, explained, first_match, match_formula, number, pair, tensor

_PROMPT, _ANSWER, _END = [11, 12, 13, 14], [21, 22, 23], 2


@check("10.1", "correct: only the answer counts, and the token that ends it.")
def check_labels(make_labels: Any) -> None:
    """``make_labels(prompt, answer, end, pad, length)`` must give token ids and labels, both ``length`` long."""
    for pad, length in ((0, 11), (_END, 11), (0, 8)):  # in SmolLM2 the padding is the end token
        what = "two lists, the token ids and the labels"
        ids, labels = pair(asked(make_labels, list(_PROMPT), list(_ANSWER), _END, pad, length), what)
        lists = all(isinstance(p, Sequence) or getattr(p, "ndim", 0) == 1 for p in (ids, labels))
        require(lists, f"it must return {what}")
        whole = [*_PROMPT, *_ANSWER, _END]
        _check_ids(_numbers(ids, "token ids"), whole, [pad] * (length - len(whole)))
        _check_labels(_numbers(labels, "labels"), whole, pad, length - len(whole))
    places = "the labels are wrong: go by the places"
    for token, where in ((13, "of three tokens"), (_END, "with an end token inside, as between turns,")):
        _, labels = make_labels([11, token, 12], list(_ANSWER), _END, 0, 9)
        right = [int(label) for label in labels] == [-100] * 3 + [*_ANSWER, _END] + [-100] * 2
        require(right, f"for a prompt {where} {places}")


def _numbers(values: Any, what: str) -> list[int]:
    """The values as whole numbers, from a list, a tensor or an array."""
    for value in values:
        if getattr(value, "ndim", 0) or isinstance(value, (str, list, tuple)) or value is None:
            raise Mistake(f"among the {what} there is {value!r}: numbers, and -100 is the label of what does not count")
    return [int(value) for value in values]


def _check_ids(ids: list[int], whole: list[int], padding: list[int]) -> None:
    length = len(whole) + len(padding)
    guesses = {
        (*_ANSWER, _END, *ids[4:]): "the prompt is missing from the token ids: the model must read it",
        (*_PROMPT, *_ANSWER, *padding, *padding[:1]): "the end token is missing: the model would never learn to stop",
        (*padding, *whole): "the padding stands on the left: for training it goes to the end",
        (*whole, *[-100] * len(padding)): "-100 is a label, no token: pad input_ids with `pad`",
        tuple(whole): f"the rows must be {length} tokens long, this one has {len(whole)}: the padding is missing",
    }
    otherwise = f"for {_PROMPT}, {_ANSWER}, {_END} and padding the token ids should be {whole + padding}, not {ids}"
    first_match(lambda guess: tuple(ids) == guess, (*whole, *padding), guesses, otherwise)


def _check_labels(labels: list[int], whole: list[int], pad: int, rest: int) -> None:
    length, answer = len(whole) + rest, [*_ANSWER, _END]
    require(len(labels) == length, f"there are {len(labels)} labels for {length} tokens: each needs one")

    def at(start: int, values: list[int], before: int = -100, after: int = -100) -> tuple[int, ...]:
        return (*[before] * start, *values, *[after] * (length - start - len(values)))[:length]

    shift = "each stands at its own token, the model does the shift itself"
    guesses = {
        at(0, whole, after=pad): "everything counts: the model would learn questions and padding too, use -100 there",
        at(0, whole): "the prompt counts as well: the model would learn to ask questions, use -100 there",
        at(0, _PROMPT): "the prompt counts and the answer does not: it is the other way round",
        at(4, answer, 0, 0): "0 is a token like any other: what does not count is -100",
        at(4, _ANSWER): "the end token does not count, so it would never learn to stop: go by the place",
        at(4, answer, after=pad): "the padding counts: use -100 there",
        at(4, answer, after=0): "the padding counts: use -100 there",
        at(3, answer): f"the labels are shifted by one to the left: {shift}",
        at(5, answer): f"the labels are shifted by one to the right: {shift}",
        at(3, [_PROMPT[-1], *answer]): "the last token of the prompt counts: the answer begins one later",
        at(5, answer[1:]): "the first token of the answer does not count: the prompt's end predicts it",
        (*at(0, whole, after=pad)[1:], -100): f"the labels are the next tokens: {shift}",
    }
    right = at(4, answer)
    otherwise = f"the labels should be {list(right)}, not {labels}"
    first_match(lambda guess: tuple(labels) == guess, right, guesses, otherwise)


@check("10.2", "correct: every text whole, and no more rows than are needed.")
def check_fill(fill: Any) -> None:
    """``fill(lengths, room)`` must put whole texts into few rows: lists of their numbers."""
    cases, given = [([4, 6, 3, 7, 5, 5], 10), ([3, 8, 3, 3, 8, 5], 10), ([2, 6, 4, 2, 5, 3, 8], 10), ([9], 9)], []
    # From the last text on, and sorted as words, these take a row more.
    cases += [([7, 6, 4, 3], 10), ([11, 9, 8, 12], 20)]
    for lengths, room in cases:
        rows = asked(fill, lengths, room)
        lists = isinstance(rows, (list, tuple)) and all(isinstance(row, (list, tuple)) for row in rows)
        if not lists or any(isinstance(i, (list, tuple, str, float)) for row in rows for i in row):
            raise Mistake("it must return a list of rows, each a list of the numbers of its texts")
        given.append(sorted(sorted(int(i) for i in row) for row in rows))
        _check_rows(given[-1], lengths, room)
    reasons = [why for pack, why in _PACKINGS.items() if given == [pack(*case) for case in cases]]
    why = (*reasons, "longest text first, each into the first row with room for it")[0]
    for rows, (lengths, room) in zip(given, cases, strict=True):
        best = len(_fitted(lengths, room))
        require(len(rows) <= best, f"{len(rows)} rows for {lengths} with room for {room}, {best} are enough: {why}")


def _check_rows(rows: list[list[int]], lengths: list[int], room: int) -> None:
    numbers, in_order = sorted(i for row in rows for i in row), range(len(lengths))
    require(all(rows), "one of the rows is empty: start a row when there is a text to put in")
    if numbers != list(in_order):
        require(numbers != sorted(lengths), "the rows hold the lengths: return the texts' numbers, places in `lengths`")
        require(numbers != list(range(1, len(lengths) + 1)), "the texts are counted from 1: their numbers begin with 0")
        missing = [i for i in in_order if i not in numbers]
        strange = [f"there is no text {i} among {len(lengths)}" for i in numbers if i not in in_order]
        where = f"text {missing[0]} is in no row" if missing else (*strange, "a text is in more than one row")[0]
        raise Mistake(f"{where}: every text goes into exactly one")
    totals = [sum(lengths[i] for i in row) for row in rows]
    if max(totals) > room:
        for order in (sorted(lengths), sorted(lengths, reverse=True)):
            if rows == _fitted(order, room, 0):
                raise Mistake("the rows hold places in the sorted list: sort the numbers of the texts, not the lengths")
        worst = rows[totals.index(max(totals))]
        raise Mistake(f"row {worst} has {max(totals)} tokens, there is room for {room}: look whether a text still fits")


def _fitted(lengths: list[int], room: int, by: int = -1, last_only: bool = False) -> list[list[int]]:
    """Each text into the first row with room, or the last row only; -1: the longest first, 1: the shortest first."""
    rows: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: by * lengths[i]):
        fitting = (row for row in rows[-1 if last_only else 0 :] if sum(lengths[j] for j in row) + lengths[i] <= room)
        row = next(fitting, None)
        if row is None:
            rows.append(row := [])
        row.append(i)
    return sorted(map(sorted, rows))


def _from_the_last(lengths: list[int], room: int) -> list[list[int]]:
    rows = _fitted(lengths[::-1], room, 0)
    return sorted(sorted(len(lengths) - 1 - i for i in row) for row in rows)


_LAST = "only the last row is looked at, try the earlier ones too"
_PACKINGS: dict[Callable[[list[int], int], list[list[int]]], str] = {
    lambda lengths, room: [[i] for i in range(len(lengths))]: "each text has a row of its own, put more into one",
    lambda lengths, room: _fitted(lengths, room - 1): "a row may be exactly full, compare with <= and not with <",
    lambda lengths, room: _fitted(lengths, room, 1): "the shortest texts come first: take the longest first",
    lambda lengths, room: _fitted(lengths, room, 0, True): _LAST,
    lambda lengths, room: _fitted(lengths, room, -1, True): _LAST,
    lambda lengths, room: _fitted(lengths, room, 0): "take the longest texts first, the short ones fill the gaps",
    lambda lengths, room: _from_the_last(lengths, room): "the last text comes first: take the longest first",
}


@check("10.3", "correct: back in its own dialogue, and nowhere else.")
def check_looking(may_look: Any) -> None:
    """``may_look(position_ids)`` must give a matrix: row i says at which tokens token i may look."""
    for lengths in ((3, 2, 4), (5,), (1, 1, 3)):
        positions = torch.tensor([place for length in lengths for place in range(length)])
        answer, size = tensor(asked(may_look, positions)), len(positions)
        shape = " × ".join(map(str, answer.shape)) or "a number"
        require(answer.shape == (size, size), f"for {size} tokens the matrix must be {size} × {size}, yours is {shape}")
        require(answer.dtype == torch.bool, f"it has numbers ({answer.dtype}): return True and False, as == gives them")
        _check_matrix(answer, positions)


def _check_matrix(answer: torch.Tensor, positions: torch.Tensor) -> None:
    place, dialogue = torch.arange(len(positions)), (positions == 0).cumsum(0)
    i, j = place[:, None], place[None]
    own, back = dialogue[:, None] == dialogue[None], j <= i
    late = torch.cat([dialogue[:1], dialogue[:-1]])  # as if a dialogue began one token later
    right, by_position = own & back, positions[None] <= positions[:, None]
    repeated = "positions repeat from dialogue to dialogue, which comparing does not see: count the zeros"
    guesses = {
        back: "a token may look back into other dialogues: only where both belong to the same one",
        own: "a token may look ahead in its own dialogue: it would read the word that it has to predict",
        own & (j < i): "no token may look at itself: it needs to, j <= i and not j < i",
        right.T: "the matrix is transposed: row i says at what token i may look, and that is what came before",
        ~right: "True and False are exchanged: True is where token i may look",
        torch.ones_like(right): "every token may look everywhere",
        by_position: repeated,
        by_position & back: repeated,
        right & (i - j <= 1): "a token may look one step back only: it may look back to the beginning of its dialogue",
        right & (dialogue[:, None] == 1): "only the first dialogue is there: each has tokens that may look back in it",
        i == j: "each token looks at itself only: it may look back to the beginning of its dialogue",
        (late[:, None] == late[None]) & back: "a dialogue begins one token too late: position 0 belongs to the new one",
        dialogue[None] <= dialogue[:, None]: "earlier dialogues are visible, and later tokens of its own",
    }
    first_match(lambda guess: torch.equal(answer, guess), right, guesses)
    for a, b in (answer != right).nonzero().tolist():
        word = "may not" if right[a, b] else "may"
        where = f"for positions {positions.tolist()} token {a} {word} look at token {b}"
        raise Mistake(f"{where}: it should be the other way round")


@check("10.4", "correct: nearly twice the gradients, however many processes there are.")
def check_bytes(sent_bytes: Any) -> None:
    """``sent_bytes(trained, processes)`` must give the bytes that each process sends to average gradients in a ring."""
    cases = [(1000, 2), (1_124_160, 4), (134_515_008, 8), (600, 3), (1001, 3)]
    guesses = {
        "4 * (n-1)/n * p": "that is half: a gradient takes 4 bytes, and the sums have to go round a second time",
        "4 * p": "that is the size of the gradients: N pieces go round twice, N − 1 rounds each (or // round down?)",
        "8 * p": "in each of the two times there are N − 1 rounds, not N: the last one would bring the piece back",
        "4 * p/n": "that is one piece, sent once: there are 2·(N − 1) rounds",
        "8 * p/n": "that is two pieces: there are 2·(N − 1) rounds, with a piece in each",
        "4 * p*(n-1)": "that is everyone sending everything to everyone: in a ring only a piece, 1 / N, goes on",
        "8 * p*(n-1)": "in each round only a piece goes on, 1 / N; or is it for all processes? It is asked for one",
        "4 * p*n": "everyone's gradients counted once: count what one process sends, round by round",
        "4 * 2*((n-1)//n) * p": "(n - 1) // n is 0, // rounds down: divide with /",
        "2*n/(n-1) * 4*p": "upside down: 2·(N − 1) rounds, a piece of 1 / N in each",
        **{f"{factor} * 2*(n-1)/n * 4*p": message for factor, message in BYTES.items()},
    }
    hint = "2·(N − 1) rounds, with a piece of 1 / N of the gradients in each"
    match_formula(sent_bytes, "p n", cases, "2*(n-1)/n * 4*p", guesses, hint)
    with explained({"ZeroDivisionError": "for one process it divides by zero: it sends nothing, in 0 rounds"}):
        alone = number(sent_bytes(1000, 1))
    require(abs(alone) < 1e-9, "one process alone has nobody to send to: for 1 it must be 0")
