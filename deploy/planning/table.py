"""Lines of a plan: rows of numbers under each other, and wrapped sentences."""

import textwrap

LABEL, COLUMN = 52, 14
WIDTH = 110


def wrapped(*sentences: str) -> str:
    return textwrap.fill(" ".join(filter(None, sentences)), WIDTH, break_long_words=False, break_on_hyphens=False)


def row_of(label: str, *cells: str) -> str:
    return label.ljust(LABEL) + "".join(cell.rjust(COLUMN) for cell in cells)
