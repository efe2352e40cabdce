"""What is said when data cannot be had here."""

ALTERNATIVES = (
    "Without a network: load('digits'), load('mnist-5k'), or load('path/to/data.npz') with the arrays "
    "x_train, y_train, x_test, y_test."
)


class DatasetUnavailable(ValueError):
    """A known dataset that cannot be had on this machine now: no network, no package, a broken download."""


def one_line(error: BaseException) -> str:
    """`error` in one line: its type and its text."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
