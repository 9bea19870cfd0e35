"""The claims of the four papers, in one page.

    python benchmarks/papers/all.py [--data FOLDER] [1 2 3 4]

Chosen papers are run, the others kept as they were last found; each is a table of its own in
``results/papers/``, and ``results/papers.md`` holds them all with the count of verdicts.
"""

import argparse
import os
from importlib import import_module
from importlib.util import find_spec

from _claims import CANNOT, NOT_REPRODUCED, REPRODUCED, report
from _report import RESULTS, table

PAPERS = (1, 2, 3, 4)


def run(number):
    script = import_module(f"paper{number}")
    packages = getattr(script, "PACKAGES", ("numpy", "scipy", "scikit-learn"))
    report(f"paper{number}", script.PAPER, script.claims(), packages)


def counted(text):
    """How many claims of a page have each verdict."""
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    return {
        verdict: sum(f" | {verdict}{end}" in row for row in rows for end in (" |", ":"))
        for verdict in (REPRODUCED, NOT_REPRODUCED, CANNOT)
    }


def gathered():
    """The page of all papers that have been run."""
    rows, parts = [], []
    for number in PAPERS:
        path = RESULTS / "papers" / f"paper{number}.md"
        if path.exists():
            text = path.read_text()
            title = text.splitlines()[0].removeprefix("# ")
            rows.append({"paper": title, **counted(text)})
            parts.append(f"#{text.strip()}")
    introduction = (
        "Each claim with what the paper reports, what the package computes, and the criterion that "
        "decides. The verdict is computed from the last two. Claims that failed stay as they are, "
        "with what holds instead."
    )
    summary = table(rows, ["paper", REPRODUCED, NOT_REPRODUCED, CANNOT])
    return "\n\n".join(["# The claims of four papers", introduction, summary, *parts]) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("papers", nargs="*", type=int, default=PAPERS)
    parser.add_argument("--data", help="folder of data; by default SKDIFFUSION_DATA")
    options = parser.parse_args()
    if options.data:
        os.environ["SKDIFFUSION_DATA"] = options.data
    for number in options.papers:
        if find_spec(f"paper{number}"):
            run(number)
    (RESULTS / "papers.md").write_text(gathered())


if __name__ == "__main__":
    main()
