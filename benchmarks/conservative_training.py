"""Networks that are gradients against networks that are not: who is conservative, who is better?

Digits with uniform noise of one grey level, divided by 8, less 1: 1,300 rows to fit, 497 held out.
Three networks of the same size and number of steps: free, free with a penalty of 0.1 on the
asymmetry, and the gradient of an energy. The bound is on the mean log-density of the first 200
held-out rows, in nats, and its difference from the free network's row by row; samples are 497 by
the default sampler, told from the held-out rows by 15 neighbours in five folds (0.5 is best). Gauge
fractions are out of fold by networks on eight noised copies of each row. They are upper bounds, as
no family of potentials holds the whole gradient part, and loose in 64 columns: the energy's network
has no gauge at all, so what it shows is the error of the fit. The projection of the free network is
by kernels about a Gaussian or a mixture at eight levels; what it loses is that error too.
"""

import argparse
import pickle
import time
from pathlib import Path

import numpy as np
from _report import table, write
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier

from skdiffusion import ConservativityDecomposer, GMMScore, NeuralScore
from skdiffusion.denoising_bound import denoising_bound
from skdiffusion.geometry import jacobian_asymmetry, step_inflation

NETWORKS = {"free": False, "penalty 0.1": 0.1, "energy": True}
LEVELS = (0.1, 0.3, 1.0, 4.0)


def rows():
    rng = np.random.default_rng(0)
    X = load_digits().data
    X = (X + rng.random(X.shape)) / 8 - 1
    order = rng.permutation(len(X))
    return X[order[:1300]], X[order[1300:]]


def remembered(folder, name, make):
    """What a run before this one left in the folder, or else made now."""
    path = None if folder is None else folder / f"{name.replace(' ', '_')}.pkl"
    if path is not None and path.exists():
        return pickle.loads(path.read_bytes())
    result = make()
    if path is not None:
        path.write_bytes(pickle.dumps(result))
    return result


def trained(name, train):
    start = time.process_time()
    est = NeuralScore(
        parameterization="gaussian",
        conservative=NETWORKS[name],
        module__width=128,
        max_epochs=200,
        random_state=0,
    ).fit(train)
    return est, time.process_time() - start


def fractions(est, train):
    """Gauge fraction per level with its standard error."""
    dec = ConservativityDecomposer(
        "neural",
        score_estimator=FrozenEstimator(est),
        sigma=est.scale_ * np.array(LEVELS),
        n_components=128,
        n_noise=8,
        cv=2,
        random_state=0,
    ).fit(train)
    return 1 - dec.conservative_fraction_, dec.conservative_fraction_std_error_


def projected(est, train, reference):
    return ConservativityDecomposer(
        "kernel",
        score_estimator=FrozenEstimator(est),
        sigma=est.scale_ * np.geomspace(0.05, 5, 8),
        reference=reference,
        length_scale=1.0,
        n_noise=2,
        random_state=0,
    ).fit(train)


def bound(model, est, test):
    return denoising_bound(model, test[:200], est.far_field_, n_noise=8)


def against(found, base):
    difference = found.bound - base.bound
    return f"{difference.mean():+.2f} ± {difference.std(ddof=1) / np.sqrt(len(difference)):.2f}"


def accuracy(a, b):
    X, labels = np.vstack([a, b]), np.repeat([0, 1], [len(a), len(b)])
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    return cross_val_score(KNeighborsClassifier(15), X, labels, cv=folds).mean()


def network_rows(nets, gauges, test):
    base = bound(nets["free"][0].model_, nets["free"][0], test)
    quality, diagnostics = [], []
    for name, (est, seconds) in nets.items():
        model, found = est.model_, bound(est.model_, est, test)
        start = time.process_time()
        for _ in range(5):
            model.denoise(test, est.scale_)
        evaluation = (time.process_time() - start) / 5
        samples = est.sample(len(test), sampler="adams", n_steps=32, random_state=0)
        quality.append(
            {
                "network": name,
                "CPU s to train": f"{seconds:.0f}",
                "ms per 497 rows": f"{1e3 * evaluation:.0f}",
                "bound": f"{found.score:.2f}",
                "than the free one": against(found, base),
                "samples told from rows": f"{accuracy(samples, test):.3f}",
            }
        )
        fraction, error = gauges[name]
        for k, share in enumerate(LEVELS):
            level = est.scale_ * share
            x = test[:100] + level * np.random.default_rng(1).standard_normal((100, 64))
            asymmetry = jacobian_asymmetry(model, x, level)
            turn = np.median(step_inflation(model, x, level, 0.3).turn)
            diagnostics.append(
                {
                    "network": name,
                    "level / scale": share,
                    "gauge fraction, at most": f"{fraction[k]:.2%} ± {error[k]:.2%}",
                    "asymmetry": f"{asymmetry.value:.3%} ± {asymmetry.std_error:.3%}",
                    "turn per step of 0.3": f"{turn:.1e}",
                }
            )
    return quality, diagnostics


def projection_rows(est, projections, test):
    base = bound(est.model_, est, test)
    lines = []
    for name, dec in projections.items():
        x = dec.as_score_model()
        for what, model in (("reference alone", x.reference), ("projection", x)):
            found = bound(model, est, test)
            lines.append(
                {
                    "about": name,
                    "model": what,
                    "bound": f"{found.score:.2f}",
                    "than the network": against(found, base),
                    "fraction per level": ""
                    if model is x.reference
                    else ", ".join(f"{f:.2f}" for f in dec.conservative_fraction_),
                }
            )
    return lines


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--keep", type=Path, help="folder for what takes time, to go on from")
    parser.add_argument("--only", help="make one of these and stop", default=None)
    options = parser.parse_args()
    train, test = rows()
    makers = {name: lambda name=name: trained(name, train) for name in NETWORKS}
    for name in NETWORKS:
        makers[f"gauge of {name}"] = lambda name=name: fractions(made(name)[0], train)
    for name, reference in {
        "a Gaussian": None,
        "a mixture": GMMScore(10, covariance_type="low_rank", random_state=0),
    }.items():
        makers[name] = lambda reference=reference: projected(made("free")[0], train, reference)

    def made(name):
        return remembered(options.keep, name, makers[name])

    if options.only:
        made(options.only)
        return
    nets = {name: made(name) for name in NETWORKS}
    gauges = {name: made(f"gauge of {name}") for name in NETWORKS}
    quality, diagnostics = network_rows(nets, gauges, test)
    projections = {name: made(name) for name in ("a Gaussian", "a mixture")}
    after = projection_rows(nets["free"][0], projections, test)
    text = [
        " ".join(__doc__.split("\n\n")[1].split()),
        table(quality, list(quality[0])),
        f"Training rows told from held-out rows: {accuracy(train[: len(test)], test):.3f}.",
        "## Five numbers, level by level",
        table(diagnostics, list(diagnostics[0])),
        "## The free network's likelihood before and after projection",
        table(after, list(after[0])),
    ]
    packages = ("numpy", "scikit-learn", "torch")
    title = "Conservative and other networks"
    write("conservative_training", title, "\n\n".join(text), packages)


if __name__ == "__main__":
    main()
