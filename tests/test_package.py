"""The package as a whole: light imports, one direction of imports, honest names."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import skdiffusion

ROOT = Path(skdiffusion.__file__).parent

# Nothing imports what stands to its right. Modules of one layer may import each other.
LAYERS = [
    ["_version"],
    ["utils"],
    ["networks"],
    ["schedules", "discrete_schedule", "parameterizations", "targets"],
    ["noising"],
    ["models"],
    ["flow"],
    ["samplers", "likelihood", "denoising_bound"],
    ["estimators"],
    ["geometry"],
    [
        "inspection",
        "compose",
        "metrics",
        "datasets",
        "utils.model_checks",
        "utils.estimator_checks",
    ],
]
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}


def layer_of(module):
    parts = module.split(".")[1:]
    if not parts:
        return None
    return RANK.get(".".join(parts[:2]), RANK.get(parts[0]))


def modules():
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


MODULES = list(modules())


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("module, path", MODULES, ids=[m for m, _ in MODULES])
def test_imports_point_one_way(module, path):
    here = layer_of(module)
    if here is None:  # the package itself loads lazily and by name
        return
    for target in imported(path):
        if target.split(".")[0] == "skdiffusion" and layer_of(target) is not None:
            assert layer_of(target) <= here, f"{module} imports {target} from its right"


@pytest.mark.parametrize("module, path", MODULES, ids=[m for m, _ in MODULES])
def test_every_module_has_a_layer_and_opens_with_a_docstring(module, path):
    assert module == "skdiffusion" or layer_of(module) is not None
    assert ast.get_docstring(ast.parse(path.read_text()))


HEAVY = ("torch", "skorch", "pandas", "matplotlib", "polars")
EVERYTHING_CLOSED_FORM = """
import numpy as np, pickle
import skdiffusion
from skdiffusion import GaussianScore, VPSchedule
from skdiffusion.models import as_score_model
X = np.random.default_rng(0).standard_normal((30, 3))
for covariance in ("empirical", "low_rank", "diag"):
    est = GaussianScore(covariance).fit(X)
    est.sample(2); est.score(X); est.transform(X); est.denoise(X, 1.0); est.jacobian(X, 1.0)
    est.sample(2, sampler="heun", n_steps=3); est.at_time("vp").velocity(X, 0.5)
    pickle.loads(pickle.dumps(as_score_model(est))).log_prob(X, 0.0)
"""


@pytest.mark.parametrize("code", ["import skdiffusion", EVERYTHING_CLOSED_FORM])
def test_closed_forms_import_nothing_heavy(code):
    # scikit-learn itself imports pandas where it is installed: that is not ours to avoid
    heavy = f"{{m for m in {HEAVY!r} if m in sys.modules}}"
    code = f"import sys, sklearn.base; before = {heavy}\n{code}\nprint({heavy} - before)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


def test_importing_the_package_loads_not_even_scikit_learn():
    code = "import skdiffusion, sys; print('sklearn' in sys.modules, 'numpy' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "False"]


@pytest.mark.parametrize("name", skdiffusion.__all__)
def test_public_names_resolve(name):
    assert getattr(skdiffusion, name) is not None


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'GausianScore'"):
        skdiffusion.GausianScore  # noqa: B018


SPOILERS = {
    "NumPy's random state": "import numpy; numpy.random.rand()",
    "NumPy's error handling": "import numpy; numpy.seterr(all='ignore')",
    "Python's random state": "import random; random.random()",
    "scikit-learn's configuration": "import sklearn; sklearn.set_config(working_memory=1)",
    "torch's random state": "import torch; torch.rand(1)",
    "torch's default dtype": "import torch; torch.set_default_dtype(torch.float64)",
    "torch's deterministic mode": "import torch; torch.use_deterministic_algorithms(True)",
}


@pytest.mark.parametrize("what", SPOILERS)
@pytest.mark.foreign_state
def test_a_test_that_touches_global_state_fails(pytester, what):
    conftest = (Path(__file__).parent / "conftest.py").read_text()
    pytester.makeconftest(conftest.replace('pytest_plugins = ["pytester"]', ""))
    pytester.makepyfile(
        f"import torch\ndef test_spoils():\n    {SPOILERS[what]}\ndef test_behaves():\n    pass"
    )
    result = pytester.runpytest_subprocess("-q", "-p", "no:cacheprovider", "-p", "no:xdist")
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines([f"*the test changed {what}*"])


def estimators():
    kinds = (getattr(skdiffusion, name) for name in skdiffusion.__all__)
    return [kind for kind in kinds if hasattr(kind, "fit")]


def seeded_estimators():
    for kind in estimators():
        if "random_state" in inspect.signature(kind).parameters:
            yield kind


# the steps of a pipeline are fitted where they are; the encoder takes what is not finite
NOT_WHOLE = ("DensityPipeline", "TableEncoder")


@pytest.mark.parametrize(
    "kind",
    [kind for kind in estimators() if kind.__name__ not in NOT_WHOLE],
    ids=lambda kind: kind.__name__,
)
def test_a_fit_that_fails_leaves_no_trace(kind):
    """Not even the number and the names of columns, which are seen before anything is known."""
    required = [
        p
        for p in inspect.signature(kind).parameters.values()
        if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD
    ]
    est = kind(*[skdiffusion.GaussianScore() for _ in required])
    before = dict(vars(est))
    with pytest.raises(ValueError, match="infinity"):
        est.fit(pd.DataFrame({"a": [0.0, 1.0, float("inf")] * 9, "b": [1.0, 2.0, 3.0] * 9}))
    assert vars(est) == before


@pytest.mark.parametrize("random_state", ["a", -1, 0.5, [1, 2]])
@pytest.mark.parametrize("kind", list(seeded_estimators()), ids=lambda kind: kind.__name__)
def test_what_makes_no_seed_is_refused_at_fit(kind, random_state, rng):
    """Also by estimators that draw nothing, or only later."""
    X = rng.standard_normal((30, 2))
    with pytest.raises(ValueError, match="random_state must be"):
        kind(random_state=random_state).fit(X)
