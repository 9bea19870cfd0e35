"""Tables with the machine and the versions they were measured with."""

import json
import os
import platform
import statistics
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


class Finished(dict):
    """What is finished of a long run, in a file if one is named: a later run goes on from it."""

    def __init__(self, path):
        self.path = path
        super().__init__(json.loads(path.read_text()) if path is not None and path.exists() else {})

    def save(self):
        if self.path is not None:
            self.path.write_text(json.dumps(self))


def interleaved(runs, repeats=5):
    """Median seconds of each callable, run in turns so that noise falls on all alike."""
    seconds = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def processor():
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def table(rows, columns):
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    lines += [f"| {' | '.join(str(row[c]) for c in columns)} |" for row in rows]
    return "\n".join(lines)


def write(name, title, text, packages=("numpy", "scipy", "scikit-learn")):
    """Print a report and keep it in ``results/<name>.md``."""
    versions = ", ".join(f"{package} {version(package)}" for package in packages)
    threads = os.environ.get("OMP_NUM_THREADS", "default")
    report = (
        f"# {title}\n\n{text}\n\n"
        f"`python benchmarks/{name}.py`, {date.today()}; Python {platform.python_version()}, "
        f"{versions}; {processor()}, {os.cpu_count()} cores, OMP_NUM_THREADS {threads}.\n"
    )
    print(report)
    target = RESULTS / f"{name}.md"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(report)
