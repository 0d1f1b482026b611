from functools import partial
from itertools import pairwise

import numpy
import torch

# --- 10.1 -----------------------------------------------------------------------------------------------------------


def right_labels(prompt, answer, end, pad, length):
    rest = length - len(prompt) - len(answer) - 1
    ids = prompt + answer + [end] + [pad] * rest
    return ids, [-100] * len(prompt) + answer + [end] + [-100] * rest


def labels_with(change):
    """The right token ids, and labels changed by ``change(labels, ids, prompt, answer, end, pad)``."""

    def make_labels(prompt, answer, end, pad, length):
        ids, labels = right_labels(prompt, answer, end, pad, length)
        return ids, change(labels, ids, prompt, answer, end, pad)

    return make_labels


def ids_with(change):
    def make_labels(prompt, answer, end, pad, length):
        ids, labels = right_labels(prompt, answer, end, pad, length)
        return change(ids, prompt, answer, end, pad), labels

    return make_labels


def padding_masked_by_its_number(prompt, answer, end, pad, length):
    """The usual trap: in SmolLM2 the padding token is the end token."""
    ids, _ = right_labels(prompt, answer, end, pad, length)
    labels = [-100 if token == pad else token for token in ids]
    labels[: len(prompt)] = [-100] * len(prompt)
    return ids, labels


def no_end(prompt, answer, end, pad, length):
    rest = length - len(prompt) - len(answer)
    return prompt + answer + [pad] * rest, [-100] * len(prompt) + answer + [-100] * rest


def not_padded(prompt, answer, end, pad, length):
    return prompt + answer + [end], [-100] * len(prompt) + answer + [end]


def padded_on_the_left(prompt, answer, end, pad, length):
    ids, labels = not_padded(prompt, answer, end, pad, length)
    rest = length - len(ids)
    return [pad] * rest + ids, [-100] * rest + labels


def appends_in_place(prompt, answer, end, pad, length):
    answer.append(end)
    rest = length - len(prompt) - len(answer)
    return prompt + answer + [pad] * rest, [-100] * len(prompt) + answer + [-100] * rest


def only_the_answer(prompt, answer, end, pad, length):
    rest = length - len(answer) - 1
    return answer + [end] + [pad] * rest, answer + [end] + [-100] * rest


def labels_without_padding(prompt, answer, end, pad, length):
    ids, labels = right_labels(prompt, answer, end, pad, length)
    return ids, labels[: len(prompt) + len(answer) + 1]


def labels_of_the_answer_only(prompt, answer, end, pad, length):
    return right_labels(prompt, answer, end, pad, length)[0], answer + [end]


def as_tensors(prompt, answer, end, pad, length):
    ids = torch.full((length,), pad)
    ids[: len(prompt) + len(answer) + 1] = torch.tensor([*prompt, *answer, end])
    labels = torch.full((length,), -100)
    labels[len(prompt) : len(prompt) + len(answer) + 1] = torch.tensor([*answer, end])
    return ids, labels


def by_a_mask(prompt, answer, end, pad, length):
    ids = [*prompt, *answer, end]
    ids += [pad] * (length - len(ids))
    counts = range(len(prompt), len(prompt) + len(answer) + 1)
    return [ids, [token if place in counts else -100 for place, token in enumerate(ids)]]


# --- 10.2 -----------------------------------------------------------------------------------------------------------


def filling(order=None, fits=lambda total, room: total <= room, first=lambda rows: rows):
    """Greedy: texts in ``order``, each into the first of ``first(rows)`` into which it ``fits``."""

    def fill(lengths, room):
        rows = []
        numbers = sorted(range(len(lengths)), key=(lambda i: order(lengths[i])) if order else lambda i: 0)
        for i in numbers:
            for row in first(rows):
                if fits(sum(lengths[j] for j in row) + lengths[i], room):
                    row.append(i)
                    break
            else:
                rows.append([i])
        return rows

    return fill


right_fill = filling(lambda length: -length)


def from_the_last(lengths, room):
    last = len(lengths) - 1
    return [[last - i for i in row] for row in filling()(lengths[::-1], room)]


def best_fit(lengths, room):
    rows, left = [], []
    for i in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        fitting = [r for r in range(len(rows)) if left[r] >= lengths[i]]
        if not fitting:
            rows.append([])
            left.append(room)
            fitting = [len(rows) - 1]
        row = min(fitting, key=left.__getitem__)
        rows[row].append(i)
        left[row] -= lengths[i]
    return tuple(tuple(row) for row in rows)


def with_arrays(lengths, room):
    left, rows = numpy.full(len(lengths), room), [[] for _ in lengths]
    for i in numpy.argsort(lengths)[::-1]:
        row = int(numpy.argmax(left >= lengths[i]))
        rows[row].append(i)
        left[row] -= lengths[i]
    return [row for row in rows if row]


def first_two_alone(lengths, room):
    return [[0], [1], *([i + 2 for i in row] for row in right_fill(lengths[2:], room))]


def returns_lengths(lengths, room):
    return [[lengths[i] for i in row] for row in right_fill(lengths, room)]


def places_after_sorting(lengths, room):
    order = sorted(lengths, reverse=True)
    return filling()(order, room)


def sorts_in_place(lengths, room):
    lengths.sort(reverse=True)
    return filling()(lengths, room)


def leaves_out_what_does_not_fit(lengths, room):
    row = []
    for i, length in enumerate(lengths):
        if sum(lengths[j] for j in row) + length <= room:
            row.append(i)
    return [row]


def no_break(lengths, room):
    rows = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        placed = False
        for row in rows:
            if sum(lengths[j] for j in row) + lengths[i] <= room:
                row.append(i)
                placed = True
        if not placed:
            rows.append([i])
    return rows


def empty_first_row(lengths, room):
    return [[], *right_fill(lengths, room)]


def loses_the_last_row(lengths, room):
    return right_fill(lengths, room)[:-1]


def pairs(lengths, room):
    return [list(range(i, min(i + 2, len(lengths)))) for i in range(0, len(lengths), 2)]


# --- 10.3 -----------------------------------------------------------------------------------------------------------


def grid(positions):
    place = torch.arange(len(positions))
    dialogue = (positions == 0).cumsum(0)
    return place[:, None], place[None], dialogue[:, None], dialogue[None]


def right_look(position_ids):
    i, j, mine, other = grid(position_ids)
    return (mine == other) & (j <= i)


def by_distance(position_ids):
    """Token j is in reach if it stands no further back than the beginning of i's dialogue."""
    place = torch.arange(len(position_ids))
    back = place[:, None] - place[None]
    return (back >= 0) & (back <= position_ids[:, None])


def by_loops(position_ids):
    matrix = torch.zeros(len(position_ids), len(position_ids), dtype=torch.bool)
    for i, position in enumerate(position_ids.tolist()):
        matrix[i, i - position : i + 1] = True
    return matrix


def one_too_late(position_ids):
    """Dialogues numbered by where the position falls, so position 0 still belongs to the old one."""
    dialogue = torch.cat([torch.zeros(1, dtype=torch.long), (position_ids[:-1] == 0).cumsum(0)])
    dialogue[0] = 1
    place = torch.arange(len(position_ids))
    return (dialogue[:, None] == dialogue[None]) & (place[None] <= place[:, None])


def added_to_the_scores(position_ids):
    return torch.zeros(len(position_ids), len(position_ids)).masked_fill(~right_look(position_ids), float("-inf"))


def in_place(position_ids):
    matrix = right_look(position_ids)
    position_ids += 1
    return matrix


def first_dialogue_only(position_ids):
    i, j, mine, other = grid(position_ids)
    return (mine == 1) & (other == 1) & (j <= i)


def by_blocks(position_ids):
    starts = (position_ids == 0).nonzero().flatten().tolist() + [len(position_ids)]
    return torch.block_diag(*(torch.ones(b - a, b - a).tril() for a, b in pairwise(starts))).bool()


def window(position_ids):
    i, j, mine, other = grid(position_ids)
    return (mine == other) & (j <= i) & (i - j <= 1)


# --- 10.4 -----------------------------------------------------------------------------------------------------------


def right_bytes(trained, processes):
    return 2 * (processes - 1) / processes * 4 * trained


def in_rounds(trained, processes):
    piece = 4 * trained / processes
    sent = 0
    for _ in range(2 * (processes - 1)):
        sent += piece
    return sent


def divides_by_zero(trained, processes):
    return 8 * trained / (processes / (processes - 1))


def not_for_one(trained, processes):
    return max(4 * trained * 1.0, right_bytes(trained, processes))


def prompt_of_four(prompt, answer, end, pad, length):
    ids, _ = right_labels(prompt, answer, end, pad, length)
    return ids, [-100] * 4 + ids[4 : len(prompt) + len(answer) + 1] + [-100] * (length - len(prompt) - len(answer) - 1)


def with_their_lengths(lengths, room):
    return [[(i, lengths[i]) for i in row] for row in right_fill(lengths, room)]


def one_text_too_many(lengths, room):
    return [*right_fill(lengths, room), [len(lengths)]]


WRONG = {
    "check_labels": [
        (prompt_of_four, "for a prompt of three tokens"),
        (labels_with(lambda labels, ids, *_: ids), "everything counts"),
        (labels_with(lambda labels, ids, prompt, *_: prompt + labels[len(prompt) :]), "the prompt counts as well"),
        (labels_with(lambda labels, ids, prompt, *_: prompt + [-100] * (len(ids) - 4)), "other way round"),
        (labels_with(lambda labels, ids, *_: labels[1:] + [-100]), "shifted by one to the left"),
        (labels_with(lambda labels, ids, *_: ids[1:] + [-100]), "next tokens"),
        (labels_with(lambda labels, ids, *_: [-100] + labels[:-1]), "shifted by one to the right"),
        (labels_with(lambda labels, ids, *_: [0 if x == -100 else x for x in labels]), "0 is a token like any other"),
        (labels_with(lambda x, i, p, a, e, pad: [pad if y == -100 else y for y in x]), "what does not count is -100"),
        (labels_with(lambda x, i, p, a, e, pad: x[:8] + [pad] * (len(x) - 8)), "the padding counts"),
        (labels_with(lambda labels, *_: labels[:3] + [14] + labels[4:]), "the last token of the prompt counts"),
        (labels_with(lambda labels, *_: labels[:4] + [-100] + labels[5:]), "first token of the answer does not count"),
        (labels_with(lambda labels, *_: labels[:7] + [-100] * (len(labels) - 7)), "never learn to stop"),
        (padding_masked_by_its_number, "go by the place"),
        (no_end, "the end token is missing"),
        (not_padded, "the padding is missing"),
        (padded_on_the_left, "the padding stands on the left"),
        (ids_with(lambda ids, *_: ids[:8] + [-100] * (len(ids) - 8)), "-100 is a label, no token"),
        (ids_with(lambda ids, *_: ids + ids), "token ids should be"),
        (appends_in_place, "changed in place"),
        (only_the_answer, "the prompt is missing from the token ids"),
        (labels_without_padding, "8 labels for 11 tokens"),
        (labels_of_the_answer_only, "4 labels for 11 tokens"),
        (labels_with(lambda labels, *_: [None if x == -100 else x for x in labels]), "-100 is the label of"),
        (lambda *args: right_labels(*args)[1], "two lists"),
        (lambda *args: None, "return missing"),
    ],
    "check_fill": [
        (filling(first=lambda rows: rows[::-1]), "longest text first", False),
        (filling(lambda length: -length, first=lambda rows: rows[-1:]), "only the last row is looked at"),
        (with_their_lengths, "a list of the numbers of its texts"),
        (one_text_too_many, "there is no text 6 among 6"),
        (filling(), "take the longest texts first"),
        (from_the_last, "the last text comes first"),
        (filling(lambda length: [-ord(digit) for digit in str(length)]), "longest text first", False),
        (filling(lambda length: length), "the shortest texts come first"),
        (first_two_alone, "there is no text 1 among 1", False),
        (filling(lambda length: -length, lambda total, room: total < room), "exactly full"),
        (filling(first=lambda rows: rows[-1:]), "only the last row"),
        (filling(lambda length: -length, lambda total, room: False), "a row of its own"),
        (filling(lambda length: -length, lambda total, room: True), "there is room for 10"),
        (pairs, "there is room for 10"),
        (returns_lengths, "the rows hold the lengths"),
        (places_after_sorting, "places in the sorted list"),
        (sorts_in_place, "changed in place"),
        (leaves_out_what_does_not_fit, "is in no row"),
        (loses_the_last_row, "is in no row"),
        (no_break, "more than one row"),
        (empty_first_row, "is empty"),
        (lambda lengths, room: [[i + 1 for i in row] for row in right_fill(lengths, room)], "counted from 1"),
        (lambda lengths, room: len(right_fill(lengths, room)), "a list of rows"),
        (lambda lengths, room: None, "return missing"),
    ],
    "check_looking": [
        (lambda p: right_look(p).long(), "it has numbers (torch.int64)"),
        (lambda p: right_look(p).float(), "it has numbers (torch.float32)"),
        (lambda p: torch.ones(len(p), len(p)).tril().bool(), "back into other dialogues"),
        (lambda p: grid(p)[2] == grid(p)[3], "may look ahead"),
        (lambda p: right_look(p).tril(-1), "no token may look at itself"),
        (lambda p: right_look(p).T, "transposed"),
        (lambda p: ~right_look(p), "exchanged"),
        (lambda p: torch.ones(len(p), len(p)).bool(), "everywhere"),
        (lambda p: p[None] <= p[:, None], "count the zeros"),
        (lambda p: (p[None] <= p[:, None]).tril(), "count the zeros"),
        (lambda p: torch.eye(len(p)).bool(), "looks at itself only"),
        (one_too_late, "one token too late"),
        (lambda p: grid(p)[3] <= grid(p)[2], "earlier dialogues are visible"),
        (added_to_the_scores, "True and False"),
        (in_place, "changed in place"),
        (first_dialogue_only, "only the first dialogue"),
        (window, "one step back only"),
        (lambda p: right_look(p) & (grid(p)[0] - grid(p)[1] <= 2), "other way round", False),
        (lambda p: (p == 0).cumsum(0), "9 × 9"),
        (lambda p: right_look(p).tolist(), "one tensor"),
        (lambda p: None, "return missing"),
    ],
    "check_bytes": [
        (lambda p, n: 2 * (n - 1) * 2 * p / n, "that is half: a gradient"),
        (lambda p, n: 2 * ((n - 1) // n) * 4 * p, "(n - 1) // n is 0"),
        (lambda p, n: 2 * (n - 1) / n * p, "those are numbers"),
        (lambda p, n: 64 * (n - 1) / n * p, "bits"),
        (lambda p, n: 16 * (n - 1) / n * p, "4 bytes, not 8"),
        (lambda p, n: 4 * (n - 1) / n * p, "go round a second time"),
        (lambda p, n: 4 * p, "the size of the gradients"),
        (lambda p, n: 2 * 4 * p, "N − 1 rounds, not N"),
        (lambda p, n: 4 * p / n, "one piece, sent once"),
        (lambda p, n: 2 * 4 * p / n, "two pieces"),
        (lambda p, n: 4 * p * (n - 1), "to everyone"),
        (lambda p, n: 2 * (n - 1) * 4 * p, "asked for one"),
        (lambda p, n: n * 4 * p, "round by round"),
        (lambda p, n: right_bytes(p, n) / 1e6, "those are MB"),
        (lambda p, n: 2 * n / (n - 1) * 4 * p, "upside down"),
        (lambda p, n: 2 * (n - 1) // n * 4 * p, "the size of the gradients"),
        (not_for_one, "for 1 it must be 0"),
        (divides_by_zero, "divides by zero"),
        (lambda p, n: 3 * (n - 1) / n * 4 * p, "with a piece of 1 / N", False),
        (lambda p, n: str(right_bytes(p, n)), "a number"),
        (lambda p, n: None, "return missing"),
    ],
}
RIGHT = {
    "check_labels": [
        right_labels,
        as_tensors,
        by_a_mask,
        lambda *args: tuple(map(numpy.array, right_labels(*args))),
        lambda *args: tuple(map(tuple, right_labels(*args))),
    ],
    "check_fill": [right_fill, best_fit, partial(filling(lambda length: 1 / length)), with_arrays],
    "check_looking": [right_look, by_distance, by_loops, by_blocks],
    "check_bytes": [
        right_bytes,
        in_rounds,
        lambda p, n: numpy.float64(p) * 8 * (n - 1) / n,
        lambda p, n: torch.tensor(8 * p - 8 * p / n),
        lambda trained, processes: 8 * trained - 8 * trained / processes,
    ],
}
