"""What does stacking buy? Held-out denoising error per noise level, beside a trained network.

Candidates are StackedScore's defaults. "Plain" is the best, ON THE HELD-OUT ROWS, of four closed
forms fitted without care for small components: one Gaussian, scikit-learn's GaussianMixture of 10
components, a mixture of 50 from the clusters of k-means, and the training rows themselves. The
network is a two-layer perceptron of width 192 with EDM preconditioning, trained by Adam on fresh
noise at every step; its better of two budgets (3,000 and 10,000 steps of 128 rows) at each level is
chosen ON THE HELD-OUT ROWS too. Errors are means per column over four noise draws, the same for
all.
"""

import numpy as np
import torch
from _report import table, write
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.mixture import GaussianMixture

from skdiffusion import EmpiricalScore, GaussianScore, GMMScore, StackedScore
from skdiffusion.datasets import load_image_patches

NAMES = ["gaussian", "few components", "many components", "rows"]
BUDGETS = (3_000, 10_000)


def plain(train):
    """Closed forms as they are usually fitted; pixels in [-1, 1] or of unit variance."""
    d = train.shape[1]
    labels = KMeans(50, n_init=1, random_state=0).fit_predict(train)
    clusters = [train[labels == k] for k in range(50)]
    return [
        GaussianScore().fit(train),
        GMMScore.from_sklearn(GaussianMixture(10, reg_covar=1e-4, random_state=0).fit(train)),
        GMMScore.from_parameters(
            [len(c) for c in clusters],
            [c.mean(0) for c in clusters],
            [np.cov(c.T, bias=True) + 1e-4 * np.eye(d) for c in clusters],
        ),
        EmpiricalScore(1e-3, scaling="none").fit(train),
    ]


def network(train, steps, seed=0):
    """An EDM denoiser: ``D = c_skip x + c_out F(c_in x, log sigma / 4)``."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        d = train.shape[1]
        body = torch.nn.Sequential(
            torch.nn.Linear(d + 1, 192), torch.nn.SiLU(),
            torch.nn.Linear(192, 192), torch.nn.SiLU(),
            torch.nn.Linear(192, d),
        )  # fmt: skip
    mean, scale = train.mean(0), float(train.std())
    data = torch.tensor((train - mean) / scale, dtype=torch.float32)

    def denoise(x, sigma):
        total = (1 + sigma**2) ** 0.5
        inside = body(torch.cat([x / total, sigma.log().expand(len(x), 1) / 4], dim=1))
        return x / total**2 + sigma / total * inside

    optimiser = torch.optim.Adam(body.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        x0 = data[torch.randint(len(data), (128,), generator=generator)]
        sigma = torch.exp(torch.randn(len(x0), 1, generator=generator) * 1.4 - 0.5)
        noise = torch.randn(x0.shape, generator=generator)
        weight = (1 + sigma**2) / sigma**2
        loss = (weight * (denoise(x0 + sigma * noise, sigma) - x0) ** 2).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()

    def back(x, sigma):
        with torch.no_grad():
            x = torch.tensor((x - mean) / scale, dtype=torch.float32)
            clean = denoise(x, torch.tensor([[sigma / scale]], dtype=torch.float32))
        return mean + scale * clean.numpy().astype(np.float64)

    return back


def compare(name, X, n_train, levels):
    rng = np.random.default_rng(0)
    X = X[rng.permutation(len(X))]
    train, test = X[:n_train], X[n_train : n_train + 1000]
    noise = rng.standard_normal((4, *test.shape))

    def errors(denoise, level):
        return np.mean([(denoise(test + level * z, level) - test) ** 2 for z in noise])

    est = StackedScore(random_state=0).fit(train)
    usual = plain(train)
    networks = [network(train, steps) for steps in BUDGETS]
    rows = []
    for level in levels:
        single = [errors(e.model_.denoise, level) for e in est.estimators_]
        stacked = errors(est.model_.denoise, level)
        loose = min(errors(e.model_.denoise, level) for e in usual)
        net = min(errors(n, level) for n in networks)
        weights = est.model_.weights_at(level)
        rows.append(
            {
                "sigma": level,
                **{k: f"{v:.5f}" for k, v in zip(NAMES, single, strict=True)},
                "StackedScore": f"**{stacked:.5f}**",
                "against the best single": f"{stacked / min(single) - 1:+.1%}",
                "plain": f"{loose:.5f}",
                "against plain": f"{stacked / loose - 1:+.1%}",
                "network": f"{net:.5f}",
                "against the network": f"{stacked / net - 1:+.1%}",
                "weights": " ".join(f"{w:.2f}" for w in weights),
            }
        )
    return f"## {name}\n\n{len(train)} rows fitted, {len(test)} held out.\n\n" + table(
        rows, list(rows[0])
    )


def main():
    digits = load_digits().data / 8 - 1
    patches = load_image_patches(5000, size=8, remove_mean=True, random_state=0)
    patches = patches / patches.std()
    text = "\n\n".join(
        [
            compare("digits, 8 x 8", digits, 1197, [0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1, 2]),
            compare("image patches, 8 x 8", patches, 4000, [0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 4]),
        ]
    )
    text += "\n\n" + " ".join(__doc__.split("\n\n")[1].split())
    write(
        "stacking",
        "Stacked closed forms beside their parts and a network",
        text,
        ("numpy", "scipy", "scikit-learn", "torch"),
    )


if __name__ == "__main__":
    main()
