"""What all layers of the table share: sizes of a sample, and a number that picks options."""

from __future__ import annotations

from typing import Any

Size = tuple[int, ...]

WORDS = 7  # tokens are numbers below this


class Variant:
    """A number that picks options; 0 is the first of each, so a shrunk model has the plainest layers."""

    def __init__(self, number: int) -> None:
        self.number = number

    def pick(self, *options: Any) -> Any:
        self.number, which = divmod(self.number, len(options))
        return options[which]
