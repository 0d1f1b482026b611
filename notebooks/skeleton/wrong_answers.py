def share(trained, frozen):
    return 100 * trained / (trained + frozen)


def without_return(trained, frozen):
    share(trained, frozen)


def in_steps(trained, frozen):
    together = trained + frozen
    return trained / together * 100


WRONG = {
    "check_share": [
        (lambda t, f: 100 * t / f, "relative to the frozen"),
        (lambda t, f: t / (t + f), "a share of one"),
        (lambda t, f: t / f, "a share of one, and relative"),
        (lambda t, f: 100 * f / (t + f), "share of the frozen"),
        (lambda t, f: 100 * (t + f) / t, "upside down"),
        (lambda t, f: 100 * t // (t + f), "rounded down"),
        (lambda t, f: 100 * (t // (t + f)), "whole number"),
        (lambda t, f: t, "number of trained"),
        (lambda t, f: t + f, "number of all"),
        (without_return, "is the return missing"),
        (lambda t, f: f"{share(t, f)} %", "must return a number"),
    ]
}
RIGHT = {"check_share": [share, in_steps, lambda trained, frozen: 100 / (1 + frozen / trained)]}
