import numpy
import torch

from adapters_lesson import Adapter


def houlsby(d, m, blocks):
    return 2 * blocks * (2 * d * m + m + d)


def houlsby_in_loop(model_dim, bottleneck_dim, blocks):
    total = 0
    for _ in range(blocks):
        for _ in ("attention", "FFN"):
            total += model_dim * bottleneck_dim + bottleneck_dim
            total += bottleneck_dim * model_dim + model_dim
    return total


def no_return(*arguments):
    houlsby(768, 64, 12)


def with_vocabulary(d, m, blocks):
    return houlsby(d, m, blocks) + 30522 * d


def standing(total, trained, itemsize):
    return itemsize * (total + 3 * trained)


def standing_in_steps(total, trained, itemsize):
    weights = total * itemsize
    gradients = trained * itemsize
    adam = 2 * trained * itemsize
    return weights + gradients + adam


def units(multiple, m_multiple=0):
    def activations(batch, length, d, m=0):
        return 4 * batch * length * (multiple * d + m_multiple * m)

    return activations


def exact(batch, length, d, heads=4):
    return 4 * batch * length * (16 * d + 4 + heads)


def with_scores(batch, length, d, heads=4):
    return units(16)(batch, length, d) + 4 * batch * heads * length * length


WRONG = {
    "check_houlsby_count": [
        (lambda d, m, n: n * (2 * d * m + m + d), "Houlsby's scheme has two"),
        (lambda d, m, n: 2 * d * m + m + d, "a single adapter"),
        (lambda d, m, n: 2 * (2 * d * m + m + d), "adapters of one block"),
        (lambda d, m, n: 4 * n * d * m, "biases are missing"),
        (lambda d, m, n: 2 * n * (2 * d * m + m), "up_project's bias is missing"),
        (lambda d, m, n: 2 * n * (2 * d * m + d), "down_project's bias is missing"),
        (lambda d, m, n: 2 * n * (2 * d * m + 2 * d), "has m entries, not d"),
        (lambda d, m, n: 2 * n * (d * m + m + d), "two weight matrices"),
        (lambda d, m, n: houlsby(d, m, n) + 4 * n * d, "LayerNorms are counted too"),
        (lambda d, m, n: 2 * houlsby(d, m, n), "twice as much"),
        (no_return, "return missing"),
        (lambda d, m, n: f"{houlsby(d, m, n):,}", "must return a number"),
        (with_vocabulary, "right is", False),
        (lambda d, m, n: n * (2 * d * m + m + d) + 2 * n * d, "one adapter in each block and its LayerNorm"),
        (lambda d, m, n: 2 * n * d * m, "half of the weights and all biases"),
    ],
    "check_standing_bytes": [
        (lambda total, trained, size: standing(total, trained, size) / 1e6, "those are MB"),
        (lambda total, trained, size: size * total, "weights alone"),
        (lambda total, trained, size: size * (total + 2 * trained), "Adam keeps two numbers"),
        (lambda total, trained, size: size * (total + trained), "Adam's state is missing"),
        (lambda total, trained, size: size * 4 * total, "the frozen ones have neither"),
        (lambda total, trained, size: size * (2 * total + 2 * trained), "a gradient: the frozen ones have none"),
        (lambda total, trained, size: size * (3 * total + trained), "counted for all parameters"),
        (lambda total, trained, size: size * 4 * trained, "frozen weights are missing"),
        (lambda total, trained, size: size * 3 * trained, "weights are missing"),
        (lambda total, trained, size: size * (total + 4 * trained), "counted twice"),
        (lambda total, trained, size: total + 3 * trained, "these are numbers"),
        (lambda total, trained, size: 4 * (total + 3 * trained), "use itemsize"),
        (lambda total, trained, size: None, "return missing"),
        (lambda total, trained, size: (size * total, size * trained), "must return a number"),
        (lambda total, trained, size: size * (total + 5 * trained), "Adam's state is counted twice"),
        (lambda total, trained, size: 2 * standing(total, trained, size), "twice as much"),
        (lambda total, trained, size: size * 4 * (total - trained) + size * trained, "are exchanged"),
    ],
    "check_block_activations": [
        (units(26), "instead of", False),
        (units(12), "12 is 4 too few"),
        (units(8), "8 is half"),
        (units(10), "4·d wide"),
        (units(15), "one is missing"),
        (units(14), "two are missing"),
        (units(17), "kept once"),
        (units(18), "kept once"),
        (units(4), "those are numbers"),
        (lambda batch, length, d: units(16)(1, length, d), "this is one text"),
        (lambda batch, length, d: units(16)(batch, 1, d), "this is one token"),
        (units(30), "instead of", False),
        (with_scores, "does not keep the scores"),
        (units(32), "twice as much"),
        (lambda *sizes: units(16)(*sizes) / 2**20, "those are MiB"),
        (lambda batch, length, d: None, "return missing"),
        (lambda batch, length, d: [16], "must return a number"),
    ],
    "check_adapter_activations": [
        (units(0), "nothing is kept"),
        (units(2, 4), "adapters' own"),
        (units(16), "full fine-tuning keeps"),
        (units(16, 4), "do not need their inputs"),
        (units(10, 4), "two of d are missing"),
        (units(11, 4), "one of d is missing"),
        (units(12), "bottleneck's own tensors are missing"),
        (units(12, 2), "before and after GELU"),
        (units(8, 4), "4·d are missing"),
        (units(3, 1), "those are numbers"),
        (lambda batch, length, d, m: units(12, 4)(1, length, d, m), "this is one text"),
        (lambda batch, length, d, m: units(12, 4)(batch, 1, d, m), "this is one token"),
        (units(13, 9), "instead of", False),
        (units(12, 8), "counted twice"),
        (units(14, 4), "its input once"),
        (lambda *sizes: units(12, 4)(*sizes) / 1e6, "those are MB"),
        (lambda *arguments: None, "return missing"),
    ],
}
RIGHT = {
    "check_houlsby_count": [
        houlsby,
        houlsby_in_loop,
        lambda d, m, n: float(houlsby(d, m, n)),
        lambda d, m, n: sum(2 * (d * (m + 1) + m * (d + 1)) for _ in range(n)),
        lambda d, m, n: 2 * n * Adapter.count(d, m),
        lambda d, m, n: numpy.int64(2 * n) * (m * (2 * d + 1) + d),
    ],
    "check_standing_bytes": [
        standing,
        standing_in_steps,
        lambda a, b, c: c * (a - b) + 4 * c * b,
        lambda a, b, c: numpy.dot([1, 1, 2], [a, b, b]) * c,
        lambda a, b, c: torch.tensor([a, b, b, b]).sum() * c,
    ],
    "check_block_activations": [
        units(16),
        exact,
        lambda b, n, d: 4 * (8 * b * n * d + 2 * b * n * (4 * d)),
        lambda b, n, d: sum(4 * torch.Size((b, n, width)).numel() for width in [d] * 8 + [4 * d] * 2),
    ],
    "check_adapter_activations": [
        units(12, 4),
        lambda b, n, d, m: 4 * b * n * (12 * d + 4 * m + 8),
        lambda b, n, d, m: sum(4 * b * n * width for width in [d] * 8 + [4 * d] + [m] * 4),
        lambda b, n, d, m: units(16)(b, n, d) - 4 * b * n * (6 * d) + 2 * (4 * b * n) * (d + 2 * m),
    ],
}
