"""A paper's claims beside what the package computes, and the verdict that follows from the two.

A ``Claim`` says what the paper says and where, what it reports, and the criterion that our numbers
have to meet; the verdict is computed, never written. Every script of this folder has a function
``claims()`` that returns a list of them, and a constant ``PAPER``, its title. Run alone it writes
``results/papers/<script>.md``; ``all.py`` gathers them.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where the other benchmarks are

from _report import table, write

COLUMNS = ["claim", "where", "paper", "ours", "criterion", "verdict", "remark"]
REPRODUCED, NOT_REPRODUCED, CANNOT = "reproduced", "not reproduced", "cannot be run here"


class Criterion(NamedTuple):
    """In words, and what it says of an array of our numbers."""

    text: str
    met: Callable[[np.ndarray], bool]


def near(value, within):
    """All numbers as far from theirs as ``within`` at most."""
    value, within = np.asarray(value, float), np.asarray(within, float)
    text = f"within {listed(within)}" + (f" of {listed(value)}" if value.any() else " of 0")
    return Criterion(text, lambda x: np.all(np.abs(x - value) <= within))


def below(value):
    return Criterion(f"below {value:g}", lambda x: np.all(x < value))


def above(value):
    return Criterion(f"above {value:g}", lambda x: np.all(x > value))


def between(low, high):
    return Criterion(f"between {low:g} and {high:g}", lambda x: np.all((x >= low) & (x <= high)))


def falling():
    return Criterion("each below the one before", lambda x: np.all(np.diff(x) < 0))


def rising():
    return Criterion("each above the one before", lambda x: np.all(np.diff(x) > 0))


def each(*criteria):
    """One criterion for each number, in their order."""
    return Criterion(
        "; ".join(c.text for c in criteria),
        lambda x: (
            len(x) == len(criteria) and all(c.met(v) for c, v in zip(criteria, x, strict=True))
        ),
    )


@dataclass(frozen=True)
class Claim:
    """What a paper says, what was found, and what has to hold for it to be reproduced.

    Parameters
    ----------
    statement : str
        The claim in one sentence.
    where : str
        Theorem, equation, table or figure.
    paper : str
        The number or the relation as the paper reports it.
    ours : array-like or None
        Our numbers; None where nothing can be run, and ``why_not`` says why.
    criterion : Criterion or None
        What our numbers have to meet.
    form : str
        How our numbers are printed.
    names : str
        What the numbers are, printed before them.
    remark : str
        What holds instead, or what the numbers rest on.
    why_not : str
        Why it cannot be run here.
    """

    statement: str
    where: str
    paper: str
    ours: object = None
    criterion: Criterion | None = None
    form: str = ".3g"
    names: str = ""
    remark: str = ""
    why_not: str = ""

    def __post_init__(self):
        if (self.ours is None) != bool(self.why_not) or (self.ours is None) != (
            self.criterion is None
        ):
            raise ValueError("a claim has numbers and a criterion, or else a reason in why_not.")

    @property
    def verdict(self):
        if self.ours is None:
            return f"{CANNOT}: {self.why_not}"
        met = self.criterion.met(np.ravel(np.asarray(self.ours, float)))  # NaN meets nothing
        return REPRODUCED if met else NOT_REPRODUCED

    def row(self):
        ours = "" if self.ours is None else listed(self.ours, self.form)
        cells = (
            self.statement,
            self.where,
            self.paper,
            f"{self.names}: {ours}" if self.names else ours,
            self.criterion.text if self.criterion else "",
            self.verdict,
            self.remark,
        )
        return {
            c: cell.replace("|", "\\|").replace("\n", " ")
            for c, cell in zip(COLUMNS, cells, strict=True)
        }


def listed(values, form=".3g"):
    return ", ".join(f"{v:{form}}" for v in np.ravel(np.asarray(values, float)))


def report(script, paper, claims, packages=("numpy", "scipy", "scikit-learn")):
    """Write the table of a paper to ``results/papers/<script>.md``."""
    write(
        f"papers/{Path(script).stem}",
        paper,
        table([claim.row() for claim in claims], COLUMNS),
        packages,
    )
