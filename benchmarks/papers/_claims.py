"""Claims of papers beside our own numbers, with verdicts that a rule gives."""

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import _report

REPRODUCED, NOT, CANNOT = "reproduced", "not reproduced", "cannot be run here"


@dataclass(frozen=True)
class Claim:
    """What a paper says, what we find, and the rule that compares them.

    Without a rule ``ours`` must be within ``factor`` of ``theirs``. A ``reason`` is why the claim
    cannot be run here.
    """

    text: str
    theirs: float | str
    ours: float | None = None
    factor: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    reason: str = ""

    @property
    def verdict(self):
        if self.reason or self.ours is None:
            return f"{CANNOT}: {self.reason}"
        kept = [
            self.factor is None or 1 / self.factor <= self.ours / self.theirs <= self.factor,
            self.at_least is None or self.ours >= self.at_least,
            self.at_most is None or self.ours <= self.at_most,
        ]
        return REPRODUCED if all(kept) else NOT

    @property
    def rule(self):
        rules = {"within a factor": self.factor, ">=": self.at_least, "<=": self.at_most}
        return ", ".join(f"{word} {value:g}" for word, value in rules.items() if value is not None)


def _shown(value):
    return "" if value is None else value if isinstance(value, str) else f"{value:.3g}"


def claims_table(claims):
    columns = ["claim", "paper", "here", "rule", "verdict"]
    rows = [
        dict(
            zip(
                columns,
                (c.text, _shown(c.theirs), _shown(c.ours), c.rule, c.verdict),
                strict=True,
            )
        )
        for c in claims
    ]
    return _report.table(rows, columns)


def write(name, title, claims, remarks="", packages=("numpy", "scikit-learn", "torch")):
    (_report.RESULTS / "papers").mkdir(parents=True, exist_ok=True)
    kept = [c.verdict for c in claims]
    counts = ", ".join(
        f"{sum(v.startswith(verdict) for v in kept)} {verdict}"
        for verdict in (REPRODUCED, NOT, CANNOT)
    )
    text = f"{len(claims)} claims: {counts}.\n\n{claims_table(claims)}\n\n{remarks}".rstrip()
    _report.write(f"papers/{name}", title, text, packages)
