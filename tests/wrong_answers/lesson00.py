import numpy
import torch

WRONG = {
    "check_trained_share": [
        (lambda trained, total: round(100 * trained / total, 2), "it is rounded"),
        (lambda trained, total: trained / total, "a share between 0 and 1"),
        (lambda trained, total: total / trained, "upside down"),
        (lambda trained, total: 100 * total / trained, "upside down"),
        (lambda trained, total: 100 * (total - trained) / total, "the share of what is frozen"),
        (lambda trained, total: 100 * trained / (total - trained), "divide by all, not by the frozen"),
        (lambda trained, total: 100 * (trained // total), "// rounds down"),
        (lambda trained, total: 100 * trained // total, "// rounds down"),
        (lambda trained, total: round(100 * trained / total), "it is rounded"),
        (lambda trained, total: 10 * trained / total, "not of ten"),
        (lambda trained, total: None, "return missing"),
        (lambda trained, total: f"{100 * trained / total} %", "it must return a number, it returned a str"),
        (lambda trained, total: 25.0, "for p = 155, n = 23,000 it gives 25", False),
    ]
}
RIGHT = {
    "check_trained_share": [
        lambda trained, total: 100 * trained / total,
        lambda trained, total: trained / total * 100,
        lambda trained, total: float(numpy.float64(trained) / total * 100),
        lambda trained, total: torch.tensor(100.0, dtype=torch.float64) * trained / total,
    ]
}
