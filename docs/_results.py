"""The tables of the benchmarks, as pages."""

import shutil
from pathlib import Path


def copy_results(source: Path, target: Path) -> None:
    """Copy tables and pictures, and write the page that lists them."""
    target.mkdir(exist_ok=True)
    tables = sorted(source.glob("*.md"))
    for path in [*tables, *source.glob("*.png")]:
        shutil.copyfile(path, target / path.name)
    lines = [
        "# Measured",
        "",
        "Beside scikit-learn and others, same data, interleaved in one process. Each page ends",
        "with the command that makes it, versions and machine.",
        "",
        "```{toctree}",
        ":maxdepth: 1",
        "",
        *(path.stem for path in tables),
        "```",
        "",
    ]
    (target / "index.md").write_text("\n".join(lines))
