import math
import random
import statistics

import numpy
import torch

from adapters_lesson.course.checks import lesson07_designs as designs
from adapters_lesson.course.figures import mean_and_interval

# 7.1


def right_lora(model_dim, rank, layers):
    return layers * 2 * (rank * model_dim + model_dim * rank)


def right_lora_by_matrices(d, r, n):
    shapes = [(d, d), (d, d)] * n
    return sum(r * (inputs + outputs) for inputs, outputs in shapes)


def right_lora_by_loop(d, r, n):
    total = 0
    for _layer in range(n):
        for _matrix in ("query", "value"):
            total += torch.zeros(r, d).numel() + torch.zeros(d, r).numel()
    return total


# 7.2


def compare(alike, alone=None, together=None):
    """A family of tests that differ in what is compared, and how."""

    def same_in_company(classify, sentences):
        one = together(classify, sentences) if together else classify(sentences)
        other = alone(classify, sentences) if alone else torch.cat([classify([s]) for s in sentences])
        return alike(one, other)

    return same_in_company


def close(a, b):
    return torch.allclose(a, b, atol=1e-4)


def only_the_first(classify, sentences):
    return close(classify(sentences)[:1], classify(sentences[:1]))


def only_the_last(classify, sentences):
    return close(classify(sentences)[-1:], classify(sentences[-1:]))


def only_the_first_and_the_last(classify, sentences):
    return only_the_first(classify, sentences) and only_the_last(classify, sentences)


def all_with_the_first_row(classify, sentences):
    together = classify(sentences)
    return all(close(together[0], classify([s])[0]) for s in sentences)


def returns_in_the_loop(classify, sentences):
    together = classify(sentences)
    for i, sentence in enumerate(sentences):
        return close(together[i], classify([sentence])[0])


def in_pairs(classify, sentences):
    return torch.cat([classify(sentences[i : i + 2]) for i in range(0, len(sentences), 2)])


def right_company(classify, sentences):
    together = classify(sentences)
    alone = torch.cat([classify([sentence]) for sentence in sentences])
    return torch.allclose(together, alone, atol=1e-4)


def right_company_by_loop(classify, sentences):
    for row, sentence in zip(classify(sentences), sentences, strict=True):
        if (row - classify([sentence]).squeeze(0)).abs().max() > 1e-4:
            return False
    return True


def right_company_with_numpy(classify, sentences):
    alone = numpy.stack([classify([s]).numpy()[0] for s in sentences])
    return numpy.abs(classify(sentences).numpy() - alone).max() < 1e-4


def right_company_as_tensor(classify, sentences):
    alone = torch.stack([classify([s]).flatten() for s in sentences])
    return ((classify(sentences) - alone).abs() < 1e-4).all()


def right_company_by_probabilities(classify, sentences):
    alone = torch.cat([classify([s]).softmax(-1) for s in sentences])
    return torch.allclose(classify(sentences).softmax(-1), alone, atol=1e-4, rtol=0)


# 7.3


def paired(width=None, difference=None):
    """A family of answers; each gets the two as numbers."""

    def paired_difference(first, second):
        a, b = first.double(), second.double()
        d = a - b
        middle = difference(a, b, d) if difference else d.mean().item()
        return middle, width(a, b, d) if width else (1.96 * d.std() / len(d) ** 0.5).item()

    return paired_difference


def share_of_all_disagreements(a, b, d):
    return (a != b).double().mean().item()


def unpaired(a, b, d):
    n = len(a)
    return 1.96 * math.sqrt((a.var() + b.var()) / n)


def ends(first, second):
    middle, half = paired()(first, second)
    return middle - half, middle + half


def right_paired(first, second):
    differences = first.float() - second.float()
    half = 1.96 * differences.std() / len(differences) ** 0.5
    return differences.mean().item(), half.item()


def right_paired_by_counts(first, second):
    b, c, n = int((first & ~second).sum()), int((second & ~first).sum()), len(first)
    return (b - c) / n, 1.96 * math.sqrt((b + c) / n - ((b - c) / n) ** 2) / math.sqrt(n)


def right_paired_after_mcnemar(first, second):
    only_first, only_second = (first & ~second).sum().item(), (second & ~first).sum().item()
    return (only_first - only_second) / len(first), 1.96 * (only_first + only_second) ** 0.5 / len(first)


def right_paired_with_numpy(first, second):
    d = first.numpy().astype(int) - second.numpy().astype(int)
    return numpy.mean(d), 1.96 * numpy.std(d, ddof=1) / numpy.sqrt(d.size)


def right_paired_in_plain_python(first, second):
    d = [int(a) - int(b) for a, b in zip(first.tolist(), second.tolist(), strict=True)]
    return [statistics.mean(d), 2 * statistics.stdev(d) / len(d) ** 0.5]


def right_paired_by_bootstrap(first, second):
    n, better, worse = len(first), (first & ~second).sum().item(), (second & ~first).sum().item()
    drawn = numpy.random.default_rng(0).multinomial(n, [better / n, worse / n, 1 - (better + worse) / n], 10_000)
    low, high = numpy.quantile((drawn[:, 0] - drawn[:, 1]) / n, [0.025, 0.975])
    return (better - worse) / n, (high - low) / 2


# 7.4

OURS, FULL = designs.OURS, designs.FULL


def claim(conclude=None, split="test", chosen_on="validation", choose=max):
    """A family of experiments; ``conclude`` gets the accuracies of the adapters and of full fine-tuning."""

    def within_one_point(run, rates, seeds):
        values = []
        for method in (OURS, FULL):
            rate = choose(rates[method], key=lambda r, m=method: run(m, r, seeds[0])[chosen_on])
            values.append([run(method, rate, seed)[split] for seed in seeds])
        return conclude(*values) if conclude else lower_end(*values) > -0.01

    return within_one_point


def interval(a, b):
    middle, half = mean_and_interval([x - y for x, y in zip(a, b, strict=True)])
    return middle - half, middle + half


def less_spread(a, b, times):
    d = [x - y for x, y in zip(a, b, strict=True)]
    return statistics.mean(d) - times * statistics.stdev(d) > -0.01


def lower_end(a, b):
    return interval(a, b)[0]


def adapters_only(run, rates, seeds):
    rate = max(rates[OURS], key=lambda r: run(OURS, r, 0)["validation"])
    return lower_end([run(OURS, rate, s)["test"] for s in seeds], [0.837] * len(seeds)) > -0.01


def first_rates(run, rates, seeds):
    return lower_end(*[[run(m, rates[m][0], s)["test"] for s in seeds] for m in (OURS, FULL)]) > -0.01


def tunes_adapters_only(run, rates, seeds):
    rate = max(rates[OURS], key=lambda r: run(OURS, r, seeds[0])["validation"])
    a, b = [[run(m, r, s)["test"] for s in seeds] for m, r in ((OURS, rate), (FULL, rates[FULL][1]))]
    return lower_end(a, b) > -0.01


def one_rate_for_both(run, rates, seeds):
    rate = max(rates[OURS], key=lambda r: run(OURS, r, seeds[0])["validation"])
    return lower_end(*[[run(m, rate, s)["test"] for s in seeds] for m in (OURS, FULL)]) > -0.01


def one_seed(run, rates, seeds):
    best = [max(run(m, r, 0)["test"] for r in rates[m]) for m in (OURS, FULL)]
    return best[0] > best[1] - 0.01


def three_seeds(run, rates, seeds):
    return claim()(run, rates, seeds[:3])


def seeds_for_adapters_only(run, rates, seeds):
    rate = {m: max(rates[m], key=lambda r, m=m: run(m, r, seeds[0])["validation"]) for m in (OURS, FULL)}
    full = run(FULL, rate[FULL], seeds[0])["test"]
    return lower_end([run(OURS, rate[OURS], s)["test"] for s in seeds], [full] * len(seeds)) > -0.01


def same_place(run, rates, seeds):
    i = max(range(3), key=lambda i: run(OURS, rates[OURS][i], seeds[0])["validation"])
    for rate in rates[FULL]:
        run(FULL, rate, seeds[0])
    return lower_end(*[[run(m, rates[m][i], s)["test"] for s in seeds] for m in (OURS, FULL)]) > -0.01


def everything_pooled(run, rates, seeds):
    a, b = [[run(m, r, s)["test"] for r in rates[m] for s in seeds] for m in (OURS, FULL)]
    return lower_end(a, b) > -0.01


def another_method(run, rates, seeds):
    return run("Houlsby m=8", 3e-3, 0)["test"] > run(FULL, 5e-5, 0)["test"] - 0.01


def returns_the_interval(run, rates, seeds):
    return claim(interval)(run, rates, seeds)


def returns_nothing(run, rates, seeds):
    claim()(run, rates, seeds)


def right_claim(run, rates, seeds):
    tests = {}
    for method in ("adapters", "full fine-tuning"):
        best = max(rates[method], key=lambda rate: run(method, rate, seeds[0])["validation"])
        tests[method] = [run(method, best, seed)["test"] for seed in seeds]
    differences = [a - b for a, b in zip(tests["adapters"], tests["full fine-tuning"], strict=True)]
    middle, half = mean_and_interval(differences)
    return middle - half > -0.01


def right_choosing_with_all_seeds(run, rates, seeds):
    results = {m: {r: [run(m, r, s) for s in seeds] for r in rates[m]} for m in rates}

    def tests(method):
        by_rate = results[method]
        best = max(by_rate, key=lambda r: statistics.mean(x["validation"] for x in by_rate[r]))
        return numpy.array([x["test"] for x in by_rate[best]])

    d = 100 * (tests(OURS) - tests(FULL))
    return d.mean() - 2.776 * d.std(ddof=1) / numpy.sqrt(len(d)) > -1


def right_unpaired(run, rates, seeds):
    def tests(method):
        best = sorted(rates[method], key=lambda r: -run(method, r, seeds[0])["validation"])[0]
        return torch.tensor([run(method, best, s)["test"] for s in seeds], dtype=torch.double)

    a, b = tests(OURS), tests(FULL)
    error = ((a.var() + b.var()) / len(seeds)).sqrt()
    return a.mean() - b.mean() - 2.5 * error > -0.01


def right_without_the_seed_of_the_choice(run, rates, seeds):
    first, *others = seeds
    rate = {m: max(rates[m], key=lambda r, m=m: run(m, r, first)["validation"]) for m in (OURS, FULL)}
    a, b = [[run(m, rate[m], s)["test"] for s in others] for m in (OURS, FULL)]
    return lower_end(a, b) > -0.01


def by_bootstrap(run, rates, seeds):
    values = []
    claim(lambda a, b: values.extend(x - y for x, y in zip(a, b, strict=True)))(run, rates, seeds)
    draw = random.Random(0)
    means = sorted(statistics.mean(draw.choices(values, k=len(values))) for _ in range(400))
    return means[10] > -0.01


def letter_by_letter(classify, sentences):
    return torch.allclose(classify(sentences), torch.cat([classify(s) for s in sentences]), atol=1e-4)


def claim_with(deviation):
    def conclude(a, b):
        d = [x - y for x, y in zip(a, b, strict=True)]
        return statistics.mean(d) - 1.96 * deviation(d) / len(d) ** 0.5 > -0.01

    return claim(conclude)


def for_800_texts(first, second):
    middle, half = paired()(first, second)
    return middle * len(first) / 800, half


def half_without_the_root(a, b):
    differences = [x - y for x, y in zip(a, b, strict=True)]
    return statistics.mean(differences) - 2.776 * statistics.stdev(differences) > -0.01


WRONG = {
    "check_lora_count": [
        (lambda d, r, n: 2 * d * r * n, "that is half"),
        (lambda d, r, n: d * r * n, "one thin matrix in each layer"),
        (lambda d, r, n: 4 * d * r, "that is one layer"),
        (lambda d, r, n: 2 * d * r, "one matrix of one layer"),
        (lambda d, r, n: 8 * d * r * n, "all four matrices"),
        (lambda d, r, n: 6 * d * r * n, "query, key and value"),
        (lambda d, r, n: 2 * d * d * n, "size of the whole matrices"),
        (lambda d, r, n: 2 * (d * r) * (r * d) * n, "add them"),
        (lambda d, r, n: 2 * n * (2 * d * r + r + d), "biases are counted"),
        (lambda d, r, n: 2 * n * (2 * d * r + d), "biases are counted"),
        (lambda d, r, n: 2 * n * (d * d + 2 * d * r), "frozen matrices are counted"),
        (lambda d, r, n: 2 * n * (2 * d * r + r * r), "nothing of r × r"),
        (lambda d, r, n: 4 * d * r * n + 2 * d + 2, "the head is counted"),
        (lambda d, r, n: 2 * n * (d + r), "rank and width are added"),
        (lambda d, r, n: 24 * d * r, "the number of layers is taken as 6"),
        (lambda d, r, n: 4 * 384 * r * n, "the width is taken as 384"),
        (lambda d, r, n: 16 * d * r * n, "those are bytes"),
        (lambda d, r, n: 73728, "right is 4,800", False),
        (lambda d, r, n: f"{4 * d * r * n:,}", "returned a str"),
        (lambda d, r, n: None, "return missing"),
    ],
    "check_company": [
        (compare(lambda a, b: close(a[:, 1], b[:, 1])), "the first of the logits"),
        (compare(lambda a, b: bool((a - b).max() < 1e-4)), "an answer that falls"),
        (compare(lambda a, b: bool((b - a).max() < 1e-4)), "an answer that rises"),
        (compare(lambda a, b: torch.allclose(a, b, atol=0.05)), "to within 1e-4"),
        (letter_by_letter, "goes through its letters"),
        (compare(torch.equal), "false alarm at rounding"),
        (compare(lambda a, b: bool((a.argmax(-1) == b.argmax(-1)).all())), "compare the logits"),
        (compare(lambda a, b: torch.allclose(a, b, atol=0.1)), "a change of a hundredth"),
        (compare(lambda a, b: bool((a.mean() - b.mean()).abs() < 1e-4)), "changes that cancel"),
        (compare(lambda a, b: close(a.mean(0), b.mean(0))), "changes that cancel"),
        (compare(lambda a, b: close(a.sort(0).values, b.sort(0).values)), "in another order"),
        (compare(lambda a, b: close(a, a)), "are the two results compared"),
        (compare(lambda a, b: not close(a, b)), "turned round"),
        (compare(lambda a, b: (a - b).abs() < 1e-4), "a verdict for each number"),
        (compare(lambda a, b: (a - b).abs().max().item()), "returned a float"),
        (compare(lambda a, b: None), "return missing"),
        (compare(close, alone=lambda c, s: c(s)), "ever classified alone"),
        (compare(close, alone=lambda c, s: c(s[::-1]).flip(0)), "ever classified alone"),
        (compare(close, alone=in_pairs), "ever classified alone"),
        (compare(close, together=lambda c, s: torch.cat([c([x]) for x in s])), "only classified one by one"),
        (compare(lambda a, b: True), "are the two results compared"),
        (only_the_first, "a change in the last sentence"),
        (only_the_last, "a change in the first sentence"),
        (only_the_first_and_the_last, "a change in one of the sentences"),
        (returns_in_the_loop, "a change in the last sentence"),
        (all_with_the_first_row, "compared with its own row"),
        (lambda classify, sentences: True, "classify is never called"),
    ],
    "check_paired": [
        (for_800_texts, "of 1400 texts 150 are right only in the first", False),
        (paired(unpaired), "two unrelated samples"),
        (paired(lambda a, b, d: unpaired(a, b, d) / 1.96), "two unrelated samples"),
        (paired(lambda a, b, d: 1.96 * (a.var() / len(a)) ** 0.5), "the first one's accuracy"),
        (paired(lambda a, b, d: d.std() / len(d) ** 0.5), "that is the standard error"),
        (paired(lambda a, b, d: 1.645 * d.std() / len(d) ** 0.5), "90 %"),
        (paired(lambda a, b, d: 2.576 * d.std() / len(d) ** 0.5), "99 %"),
        (paired(lambda a, b, d: 2 * 1.96 * d.std() / len(d) ** 0.5), "half of it"),
        (paired(lambda a, b, d: d.std()), "a single text's difference"),
        (paired(lambda a, b, d: 1.96 * d.std()), "√n is missing"),
        (paired(lambda a, b, d: 1.96 * d.std() / len(d)), "by √n"),
        (paired(lambda a, b, d: 1.96 * d.var() / len(d) ** 0.5), "variance: take its root"),
        (paired(lambda a, b, d: d.var() / len(d)), "variance of the mean"),
        (paired(lambda a, b, d: 1.96 * d.std() / (a != b).sum() ** 0.5), "how many texts they disagree on"),
        (paired(difference=lambda a, b, d: (b - a).mean()), "the sign is turned round"),
        (paired(difference=lambda a, b, d: 100 * d.mean()), "percentage points"),
        (paired(difference=lambda a, b, d: d.sum()), "a number of texts"),
        (paired(difference=share_of_all_disagreements), "the two disagree"),
        (paired(difference=lambda a, b, d: d.sum() / (a != b).sum()), "divide by all texts"),
        (paired(difference=lambda a, b, d: (d > 0).double().mean()), "what only the second does"),
        (paired(difference=lambda a, b, d: a.mean()), "the first one's accuracy"),
        (paired(difference=lambda a, b, d: d.mean().abs()), "lost its sign"),
        (ends, "ends of the interval"),
        (lambda first, second: paired()(first, second)[::-1], "wrong order"),
        (lambda first, second: paired()(first, second)[0], "two values"),
        (lambda first, second: None, "return missing"),
        (lambda first, second: ((first - second).float().mean(), 0), ".float() makes"),
    ],
    "check_claim": [
        (claim(lambda a, b: a[-1] > b[-1] - 0.01), "your function says otherwise", False),
        (
            claim(lambda a, b: any(x > y - 0.01 for x, y in zip(a, b, strict=True))),
            "your function says otherwise",
            False,
        ),
        (claim(half_without_the_root), "too wide"),
        (by_bootstrap, "too short for five seeds"),
        (claim_with(statistics.stdev), "too short for five seeds"),
        (claim_with(statistics.pstdev), "too short for five seeds"),
        (claim(lambda a, b: statistics.mean(a) > statistics.mean(b) - 0.01), "it compares the means alone"),
        (claim(lambda a, b: abs(statistics.mean(a) - statistics.mean(b)) < 0.01), "a failure when adapters are better"),
        (claim(lambda a, b: interval(a, b)[0] < 0 < interval(a, b)[1]), "no significant difference"),
        (claim(lambda a, b: interval(a, b)[1] > 0), "not significantly worse"),
        (claim(lambda a, b: interval(a, b)[0] > -0.01 and interval(a, b)[1] < 0.01), "also asks for the upper end"),
        (claim(lambda a, b: interval(a, b)[1] > -0.01), "the interval's upper end"),
        (claim(lambda a, b: lower_end(b, a) > -0.01), "turned round"),
        (claim(lambda a, b: lower_end(a, b) > 0.01), "at most a point worse"),
        (claim(lambda a, b: lower_end(a, b) > 0), "at most a point worse"),
        (claim(lambda a, b: lower_end(a, b) > -1), "one point is 0.01"),
        (claim(lambda a, b: all(x - y > -0.01 for x, y in zip(a, b, strict=True))), "every single seed"),
        (claim(lambda a, b: less_spread(a, b, 1)), "too short for five seeds"),
        (claim(lambda a, b: less_spread(a, b, 2)), "too wide"),
        (claim(lambda a, b: less_spread(a, b, 3.182 / 5**0.5)), "your function says otherwise", False),
        (claim(lambda a, b: max(a) > max(b) - 0.01), "the best seeds"),
        (claim(lambda a, b: a[0] > b[0] - 0.01), "one seed only"),
        (claim(lambda a, b: statistics.median(a) > statistics.median(b) - 0.01), "the medians alone"),
        (claim(lambda a, b: lower_end(a, [statistics.mean(b)] * 5) > -0.01), "full fine-tuning's mean for exact"),
        (claim(split="validation"), "report the test split"),
        (claim(chosen_on="test"), "choose on validation"),
        (claim(choose=min), "the worst rate"),
        (same_place, "the one in the same place"),
        (everything_pooled, "averages over all rates"),
        (adapters_only, "no run of full fine-tuning"),
        (first_rates, "adapters: 1 of 3 rates"),
        (tunes_adapters_only, "full fine-tuning: 1 of 3 rates"),
        (one_rate_for_both, "each method has its own"),
        (one_seed, "no rate has more than 1 of 5 seeds"),
        (three_seeds, "more than 3 of 5 seeds"),
        (seeds_for_adapters_only, "full fine-tuning: no rate has more than 1"),
        (another_method, "there is no method"),
        (returns_the_interval, "returned a tuple"),
        (returns_nothing, "return missing"),
        (lambda run, rates, seeds: True, "no run is made"),
    ],
}
RIGHT = {
    "check_lora_count": [
        right_lora,
        right_lora_by_matrices,
        right_lora_by_loop,
        lambda d, r, n: numpy.int64(4 * d * r * n),
    ],
    "check_company": [
        right_company,
        right_company_by_loop,
        right_company_with_numpy,
        right_company_as_tensor,
        right_company_by_probabilities,
    ],
    "check_paired": [
        right_paired,
        right_paired_by_counts,
        right_paired_after_mcnemar,
        right_paired_with_numpy,
        right_paired_in_plain_python,
        right_paired_by_bootstrap,
    ],
    "check_claim": [
        right_claim,
        right_choosing_with_all_seeds,
        right_unpaired,
        right_without_the_seed_of_the_choice,
    ],
}
