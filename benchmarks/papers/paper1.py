"""Claims of Horvat and Pfister on gauge freedom, conservativity and intrinsic dimension.

    python benchmarks/papers/paper1.py

"On Gauge Freedom, Conservativity and Intrinsic Dimensionality Estimation in Diffusion Models",
ICLR 2024. The paper shows trajectories and reports no table of errors: where it says "unchanged",
the criterion is rounding or the tolerance of the solver for exact scores, and the standard error
for samples.
"""

import warnings

import numpy as np
from _claims import Claim, above, below, each, near, report
from conservativity import THREE, TURN, accuracy, error, law_and_turn

from skdiffusion import ConservativityDecomposer, IntrinsicDimensionEstimator, NeuralScore
from skdiffusion.datasets import make_gaussian, make_sphere, make_swiss_roll
from skdiffusion.geometry import linear_gradient, strong_gauge_residual
from skdiffusion.likelihood import flow_log_prob
from skdiffusion.models import AdditiveGauge, GaussianModel, MixtureModel, jacobian
from skdiffusion.samplers import HeunSampler, run_sampler

PAPER = "Horvat and Pfister (2024): gauge freedom, conservativity, intrinsic dimension"
PACKAGES = ("numpy", "scipy", "scikit-learn", "torch")
FIVE = 1.0, 1.0, 0.0, 0.0, 0.0
"""Variances of the Gaussian of the paper's main figure: two of five columns, in rotated axes."""


def drawn(model, levels, n=2000):
    start = THREE.gaussian().mean + 30 * np.random.default_rng(0).standard_normal((n, 2))
    return run_sampler(HeunSampler(), model, start, levels)


def turned(strength):
    return AdditiveGauge(THREE, strength * TURN, fade=5.0)


def marginals():
    truth = THREE.sample(2000, random_state=1)
    fine, coarse = ([*np.geomspace(30, 0.01, k), 0.0] for k in (100, 12))
    yield Claim(
        "A remainder with div r + <r, score> = 0 leaves all marginals as they are",
        "equation 6",
        "unchanged",
        [accuracy(drawn(turned(k), fine), truth) for k in (0.0, 1.0, 5.0)],
        near(0.5, 0.02),
        names="samples told from the law, gauge 0, 1, 5 times J s, 100 levels",
        remark="A classifier of 50 neighbours on 4,000 rows: two and a half standard errors",
    )
    yield Claim(
        "The same at few steps of a solver",
        "equation 6, said of the exact flow",
        "unchanged",
        [accuracy(drawn(turned(k), coarse), truth) for k in (0.0, 1.0, 5.0)],
        near(0.5, 0.03),
        names="the same, 12 levels",
        remark="The paper speaks of the exact flow: a solver has to follow the turns, and a strong "
        "gauge costs it steps",
    )
    x = THREE.sample(50, 0.05, random_state=2)
    yield Claim(
        "Densities along the flow stay exact",
        "equation 6, corollary",
        "exact",
        [
            np.abs(
                flow_log_prob(turned(k), x, THREE.gaussian(), 0.05, 1e4, tol=1e-11).log_prob
                - THREE.log_prob(x, 0.05)
            ).max()
            for k in (0.0, 1.0, 5.0)
        ],
        below(1e-7),
        names="largest error in nats, gauge 0, 1, 5 times J s",
        form=".0e",
        remark="Tolerance of the solver: 1e-11 a step, over some thousands of steps and turns",
    )


def condition():
    normal = GaussianModel(np.zeros(2), 1.0)

    def Q(x):  # q J with q = x_1: r = J grad q + q J s = (x_1 x_2, 1 - x_1^2)
        return x[:, :1, None] * TURN

    field = AdditiveGauge(normal, Q)
    x = normal.sample(200, random_state=0)
    r = field.gauge(x, 0.0)
    tilt = np.abs((r * normal.score(x, 0.0)).sum(axis=1))
    yield Claim(
        "Equation 6 alone is needed, not div r = 0 and <r, score> = 0 one by one",
        "equation 6",
        "sufficient",
        [
            np.abs(strong_gauge_residual(field, normal, x, 0.0)).max(),
            np.abs(r - np.stack([x[:, 0] * x[:, 1], 1 - x[:, 0] ** 2], axis=1)).max(),
            np.median(tilt),
        ],
        each(below(1e-6), below(1e-8), above(0.1)),
        names="r = (x1 x2, 1 - x1^2), normal law: largest residual of equation 6, error of r, "
        "median of abs <r, score>",
        form=".1e",
        remark="div r and <r, score> are x2 and -x2; derivatives by differences",
    )


def splitting():
    cases = [
        ([1.0, 4.0], 0.8),
        ([4.0, 1.0], 0.2),
        ([1.0, 1.0], 0.5),
    ]
    M = np.array([[0.0, 1.0], [0.0, 0.0]])
    found = []
    for variances, _ in cases:
        C = np.diag(variances)
        S = linear_gradient(M, C)
        found.append(np.trace(S @ C @ S) / np.trace(M @ C @ M.T))
    yield Claim(
        "A field splits in one way into a gradient and a gauge, orthogonal in L2(p)",
        "theorem 1",
        "0.8, 0.2, 0.5 in closed form",
        found,
        near([case[1] for case in cases], 1e-12),
        names="gradient's share of (x2, 0), variances (1, 4), (4, 1), (1, 1)",
        remark="The asymmetry of the Jacobian is 1/2 for all three: it is not the gauge's share",
    )
    X = np.random.default_rng(0).standard_normal((5000, 2))
    V = np.stack([X[:, 1] ** 2, 0 * X[:, 0]], axis=1)
    poly = ConservativityDecomposer("polynomial", random_state=0).fit(X, V)
    R = np.stack([X[:, 0] * X[:, 1], 1 - X[:, 0] ** 2], axis=1)
    pure = ConservativityDecomposer(random_state=0).fit(X[:2000], R[:2000])
    V = AdditiveGauge(THREE, TURN).score(Y := THREE.sample(2000, random_state=0), 0.0)
    half = ConservativityDecomposer("kernel", random_state=0).fit(Y, V)
    yield Claim(
        "The same from rows and values of the field alone",
        "theorem 1",
        "5/9; 0; 1/2 in closed form",
        [
            poly.conservative_fraction_,
            pure.conservative_fraction_,
            half.conservative_fraction_,
        ],
        each(near(5 / 9, 0.03), near(0, 0.02), near(0.5, 0.03)),
        names="gradient's share out of fold of (x2^2, 0), a pure gauge, s + J s on three modes",
        remark="Three standard errors of some 0.01; neither score nor density is given",
    )
    law, Q = law_and_turn(8)
    Z = law.sample(2000, random_state=0)
    found = ConservativityDecomposer(random_state=0).fit(Z, law.score(Z, 0.0) @ Q.T)
    yield Claim(
        "The same in 8 columns: a pure gauge has no gradient part",
        "theorem 1",
        "0",
        found.conservative_fraction_,
        near(0, 0.02),
        form=".4f",
        names="share",
    )


def loss():
    """Learned score of a wrong gradient and a gauge, its loss and the two parts."""
    wrong = MixtureModel([1, 1, 1], [[2.0, 0.0], [-2.0, 0.0], [0.0, 2.0]], [1.0, 1.0, 1.0])
    X = THREE.sample(20_000, random_state=3)
    s, gradient, r = THREE.score(X, 0.0), wrong.score(X, 0.0), THREE.score(X, 0.0) @ TURN.T
    total, first, second = ((v**2).sum(axis=1).mean() for v in (s - gradient - r, s - gradient, r))
    rows = slice(0, 2000)
    dec = ConservativityDecomposer("kernel", random_state=0).fit(X[rows], (gradient + r)[rows])
    fresh = X[2000:]
    yield Claim(
        "The loss of score matching is that of the gradient part plus the gauge's energy",
        "equation 10",
        "equal",
        (first + second) / total,
        near(1, 0.03),
        names="sum of parts over the loss, 20,000 rows",
        form=".4f",
        remark="The cross term is a mean of random sign; three standard errors",
    )
    yield Claim(
        "The gradient part is what counts, and can be found",
        "equation 10",
        "theorem without an estimator",
        [
            error((gradient + r)[2000:], gradient[2000:]),
            error(dec.predict(fresh), gradient[2000:]),
        ],
        each(above(0.5), below(0.25)),
        names="error as a share of the gradient part: of the field itself, of the decomposer's",
        form=".2f",
    )
    fine = [*np.geomspace(30, 0.01, 100), 0.0]
    truth = THREE.sample(2000, random_state=1)
    yield Claim(
        "To be conservative is neither necessary nor sufficient for exact samples",
        "equation 10, corollary",
        "neither",
        [accuracy(drawn(turned(5.0), fine), truth), accuracy(drawn(wrong, fine), truth)],
        each(near(0.5, 0.02), above(0.55)),
        names="samples told from the law: a gauge of 5 J s, a wrong mixture's gradient",
        form=".3f",
    )


def gaussian_example():
    U = np.array([[np.cos(0.5), -np.sin(0.5)], [np.sin(0.5), np.cos(0.5)]])
    C = U @ np.diag([2.0, 0.3]) @ U.T
    law = GaussianModel(np.zeros(2), C)
    precision = np.linalg.inv(C)
    x = law.sample(300, random_state=0)
    good, plain = 3 * TURN @ precision, 3 * TURN
    parts = []
    for R in (good, plain):
        r, s = x @ R.T, law.score(x, 0.0)
        parts.append(np.abs(np.trace(R) + (r * s).sum(axis=1)).max())
    found = np.abs(linear_gradient(good - precision, C) + precision).max()
    yield Claim(
        "Planar Gaussian: a turn along the ellipses of the covariance is a gauge of its score",
        "section 4",
        "div r + <r, score> = 0",
        [parts[0], found],
        below(1e-12),
        names="largest residual of R = A inverse(C), A antisymmetric; error of the gradient part",
        form=".0e",
    )
    yield Claim(
        "There any antisymmetric matrix R_t will do",
        "section 4, by its public reviews",
        "div r + <r, score> = 0",
        parts[1],
        below(1e-12),
        names="largest residual of R = A, variances 2 and 0.3",
        remark="Only where A commutes with the covariance; in general R C is antisymmetric, not R",
    )


def gaussian_dimension():
    X, law = make_gaussian(50, 5, spectrum=FIVE, random_state=0)
    logs = []
    for b in (0.1, 0.03):
        # variance preserving, in units of beta, time towards the noise
        J = -0.5 * np.eye(5) - 0.5 * jacobian(law, X[:1], b, of="score")[0]
        logs.append(np.sort(np.linalg.eigvalsh(J)))
    yield Claim(
        "Gaussian of 2 dimensions in 5 columns: two singular values of exp(grad f) go to one, "
        "three diverge",
        "main figure, text",
        "2 at one, 3 diverge",
        np.ravel(logs),
        each(*2 * [*2 * [near(0, 0.01)], *3 * [above(10)]]),
        names="their logarithms at noise 0.1 and 0.03",
        remark="One because the variances are one: the flow's slopes below need no units",
    )
    flow = [
        IntrinsicDimensionEstimator("flow_jacobian", score_estimator=law, sigma=s).fit(X).dimension_
        for s in (0.3, 0.1, 0.01)
    ]
    yield Claim(
        "The number of singular values that do not vanish is the dimension",
        "theorem 2",
        "2",
        flow,
        near(2, 0.01),
        names="flow, noise 0.3, 0.1, 0.01",
        remark="By the slopes of their logarithms below a half; exact score",
    )
    rng = np.random.default_rng(3)
    A = rng.standard_normal((5, 5))
    gauged = AdditiveGauge(law, A - A.T)
    found = [
        IntrinsicDimensionEstimator(m, score_estimator=gauged, sigma=0.05).fit(X).dimension_
        for m in ("flow_jacobian", "flipd")
    ]
    yield Claim(
        "A gauge field that is not a gradient would give the right dimension too",
        "discussion",
        "2, left to future work",
        found[0],
        near(2, 0.01),
        names="flow, random gauge, noise 0.05",
        remark=f"FLIPD of the same score, which sees the gauge, says {found[1]:.3g}",
    )


def figure_five():
    """Networks on spheres and rolls, free and conservative, after a short and a long training."""
    warnings.simplefilter("ignore")
    laws = {
        "sphere in 3": make_sphere(2000, 2, 3, random_state=0),
        "sphere in 5": make_sphere(2000, 2, 5, random_state=0),
        "roll in 5": make_swiss_roll(2000, 5, random_state=0),
    }

    def dimension(X, model):
        level = 0.1 * np.sqrt(X.var(axis=0).sum())
        est = IntrinsicDimensionEstimator("flow_jacobian", score_estimator=model, sigma=level)
        return est.fit(X[:30]).dimension_

    def trained(epochs, conservative):
        return [
            dimension(
                X,
                NeuralScore(
                    parameterization="gaussian",
                    module__width=64,
                    max_epochs=epochs,
                    conservative=conservative,
                    random_state=0,
                )
                .fit(X)
                .model_,
            )
            for X, _ in laws.values()
        ]

    names = "flow, " + ", ".join(laws)
    yield Claim(
        "Sphere and Swiss roll have dimension 2",
        "theorem 2, figure 5",
        "2",
        [dimension(X, law) for X, law in laws.values()],
        near(2, 0.05),
        names=names,
        remark="Exact scores",
    )
    right, wrong = near(2, 0.25), above(2.5)
    for conservative, words, paper, criterion in (
        (True, "A conservative network finds the dimension", "right", right),
        (False, "An unconstrained network does not", "wrong", wrong),
    ):
        for epochs in (20, 100):
            remark = "Before they converge networks see the linear span; gradients leave it sooner"
            if epochs == 100:
                remark = "What counts is convergence: at the same number of steps both are right"
            yield Claim(
                f"{words}, {epochs} epochs",
                "figure 5, appendix",
                paper,
                trained(epochs, conservative),
                criterion,
                names=names,
                remark=remark,
            )


def claims():
    parts = (
        marginals,
        condition,
        splitting,
        loss,
        gaussian_example,
        gaussian_dimension,
        figure_five,
    )
    return [claim for part in parts for claim in part()]


if __name__ == "__main__":
    report(__file__, PAPER, claims(), PACKAGES)
