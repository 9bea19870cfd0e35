"""How good are likelihoods that know a denoiser alone, and what do they cost?

Laws are mixtures fitted to tables that scikit-learn ships, to digits and to image patches, so that
the log-density is known; rows are 100 draws of each. The flow sees the law's denoiser and
divergence, at the default tolerance, and is compared with the law at the lowest noise level. The
peer is SciPy's DOP853 row by row on the same two equations in the coordinates of the data, with the
exact trace and tolerances of 1e-6, on 10 of the rows. The bound sees the denoiser alone; its gap is
that of the mean over the rows from the mean of their log-densities without any noise, with the
standard error it reports itself. It is a bound of the law at a five-hundredth of the narrowest
column's deviation: where components are narrower than that, as in the last law, this costs what the
gap shows. Evaluations are per row.
"""

import time

import numpy as np
import scipy.integrate
from _report import table, write
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.decomposition import PCA

from skdiffusion import GMMScore
from skdiffusion.datasets import load_image_patches
from skdiffusion.denoising_bound import denoising_bound
from skdiffusion.likelihood import flow_log_prob
from skdiffusion.models import MixtureModel
from skdiffusion.noising import noise_range


def laws():
    def fitted(X, k, **options):
        return GMMScore(k, random_state=0, **options).fit(X).model_

    patches = load_image_patches(3000, size=8, remove_mean=True, random_state=0)
    digits = load_digits().data
    return {
        "iris, 3 components": fitted(load_iris().data, 3),
        "wine, 3 components": fitted(load_wine().data, 3),
        "breast cancer, 3, tied": fitted(load_breast_cancer().data, 3, covariance_type="tied"),
        "digits, 16 principal axes, 10": fitted(PCA(16, random_state=0).fit_transform(digits), 10),
        "digits, 64 pixels, 10, low rank": fitted(digits, 10, covariance_type="low_rank"),
        "image patches 8 x 8, 5, low rank": fitted(
            patches / patches.std(), 5, covariance_type="low_rank"
        ),
        "25 narrow clusters in the plane": MixtureModel(
            np.ones(25), np.indices((5, 5)).reshape(2, -1).T, np.full(25, 0.05**2)
        ),
        "variances a million apart": MixtureModel([0.5, 0.5], [[0, 0], [0, 1]], [1.0, 1e-6]),
    }


class Counted:
    """A model that counts the rows it is asked about."""

    def __init__(self, model):
        self.model, self.rows = model, 0

    def __getattr__(self, name):
        answer = getattr(self.model, name)
        if name not in ("denoise", "denoise_and_divergence"):
            return answer

        def count(x, *args, **options):
            self.rows += len(x)
            return answer(x, *args, **options)

        return count


def by_scipy(model, x, far_field, low, high):
    """Log-densities by DOP853 in data coordinates, row by row."""
    found = []
    for row in x:

        def rates(u, state):
            denoised, trace = model.denoise_and_divergence(state[None, :-1], np.exp(u))
            return np.append(state[:-1] - denoised[0], len(state) - 1 - trace)

        path = scipy.integrate.solve_ivp(
            rates, np.log([low, high]), [*row, 0.0], "DOP853", rtol=1e-6, atol=1e-6
        )
        end = path.y[:, -1]
        found.append(far_field.log_prob(end[None, :-1], high)[0] + end[-1])
    return np.array(found)


def timed(model, run):
    counted = Counted(model)
    start = time.perf_counter()
    result = run(counted)
    return result, counted.rows, time.perf_counter() - start


def flow_row(name, law, x, far_field, low, high):
    exact = law.log_prob(x, low)
    found, asked, seconds = timed(law, lambda m: flow_log_prob(m, x, far_field, low, high))
    few = x[:10]
    peer, peer_asked, peer_seconds = timed(law, lambda m: by_scipy(m, few, far_field, low, high))
    off = np.abs(found.log_prob - exact)
    return {
        "law": name,
        "columns": law.n_features,
        "largest error": f"{off.max():.0e}",
        "median": f"{np.median(off):.0e}",
        "largest estimate": f"{found.error.max():.0e}",
        "evaluations": f"{asked / len(x):.0f}",
        "ms per row": f"{1e3 * seconds / len(x):.1f}",
        "DOP853: largest error": f"{np.abs(peer - exact[:10]).max():.0e}",
        "its evaluations": f"{peer_asked / len(few):.0f}",
        "its ms per row": f"{1e3 * peer_seconds / len(few):.0f}",
    }


def bound_row(name, law, x, far_field):
    exact = law.log_prob(x).mean()
    found, asked, seconds = timed(law, lambda m: denoising_bound(m, x, far_field))
    many = denoising_bound(law, x, far_field, n_noise=128, random_state=1)
    single = denoising_bound(far_field, x, far_field)
    return {
        "law": name,
        "mean log-density": f"{exact:.3f}",
        "gap of the bound": f"{found.score - exact:+.4f} ± {found.score_std_error:.4f}",
        "with 128 pairs": f"{many.score - exact:+.4f} ± {many.score_std_error:.4f}",
        "a single Gaussian's bound": f"{single.score - exact:+.3f}",
        "evaluations": f"{asked / len(x):.0f}",
        "ms per row": f"{1e3 * seconds / len(x):.1f}",
    }


def main():
    flows, bounds = [], []
    for name, law in laws().items():
        x = law.sample(100, random_state=1)
        far_field = law.gaussian()
        _, low, high = noise_range(far_field.covariance.diagonal)
        flows.append(flow_row(name, law, x, far_field, low, high))
        bounds.append(bound_row(name, law, x, far_field))
    text = "\n\n".join(
        [
            " ".join(__doc__.split("\n\n")[1].split()),
            "## Log-densities along the probability flow",
            table(flows, list(flows[0])),
            "## The denoising bound",
            table(bounds, list(bounds[0])),
        ]
    )
    write("likelihood", "Likelihoods from a denoiser", text)


if __name__ == "__main__":
    main()
