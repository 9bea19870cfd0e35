"""What a training step costs: NeuralScore's loop, a loop by hand, skorch, and published recipes.

Two moons (d = 2), batches of 256, the same residual perceptron everywhere, one thread. By hand is
what one writes in twenty lines: rows by random indices, levels and noise drawn at every step, the
loss of parameterization="gaussian", fused AdamW; with a moving average of the weights and a cosine
of the learning rate, which NeuralScore keeps, and without. NeuralScore has that parameterization
too, and its default, which adds to the mixtures that held-out rows choose, beside it; by hand, the
same mixtures take a dozen lines more, and are evaluated at every step. Stock skorch trains the same
loss and optimizer as a module of its own. azula (KarrasDenoiser on its variance-preserving
schedule) and torchcfm (ConditionalFlowMatcher, its velocity regression) run the loops of their
tutorials, with Adam as it is there. Turns are short and alternate; times are of the loop alone.

    pip install azula torchcfm
    OMP_NUM_THREADS=1 python benchmarks/training_speed.py
"""

import math
import statistics
import time
import warnings

import numpy as np
import torch
from _report import table, write
from skorch import NeuralNet
from skorch.callbacks import Callback

from skdiffusion import GMMScore, NeuralScore
from skdiffusion.datasets import make_moons
from skdiffusion.networks.mlp import ResidualMLP

warnings.filterwarnings("ignore")
BATCH, STEPS, TURNS, ROWS = 256, 160, 7, 5_120
LR, MEAN, SPREAD = 2e-3, -1.2, 1.2
WIDTHS = (64, 256)


class Clock:
    """Seconds of a processor and of the wall between two moments."""

    def __enter__(self):
        self.wall, self.cpu = -time.perf_counter(), -time.process_time()
        return self

    def __exit__(self, *_):
        self.wall += time.perf_counter()
        self.cpu += time.process_time()


class Rounds(Callback):
    """Clocks what lies between the beginning of the first epoch and the end of the last."""

    def on_epoch_begin(self, net, **_):
        if not hasattr(self, "start_"):
            self.start_ = time.perf_counter(), time.process_time()

    def on_epoch_end(self, net, **_):
        self.wall_ = time.perf_counter() - self.start_[0]
        self.cpu_ = time.process_time() - self.start_[1]


def own(X, width, parameterization="gaussian"):
    rounds = Rounds()
    NeuralScore(
        parameterization=parameterization,
        early_stopping=False,
        max_epochs=round(STEPS * BATCH / len(X)),
        module__width=width,
        callbacks=[rounds],
        random_state=0,
    ).fit(X)
    return rounds.wall_, rounds.cpu_


def gaussian_loss(network, x0, sigma, noise, variances, mixture=None):
    """The loss of ``parameterization="gaussian"``, or of what a mixture misses."""
    x = x0 + sigma * noise
    share = variances / (variances + sigma**2)
    out = sigma * share.mean(-1, keepdim=True).sqrt()
    skip, point = share * x, x / (variances.mean() + sigma**2).sqrt()
    if mixture is not None:
        with torch.no_grad():
            known = mixture(x, sigma)
            skip, point = known, torch.cat([point, (known - skip) / out], dim=1)
    return (network(point, sigma.log()[:, 0] / 4) - (x0 - skip) / out).square().mean()


class Mixture:
    """The denoiser of the mixtures that NeuralScore chooses, in a dozen lines of torch."""

    def __init__(self, data):
        law = GMMScore("held_out", n_averaged=5, random_state=0).fit(data.numpy()).model_

        def tensor(values):
            return torch.as_tensor(np.array(values), dtype=torch.float32)

        self.means, self.log_weights = tensor(law.means), tensor(law.weights).log()
        self.variances, axes = torch.linalg.eigh(tensor([c.to_matrix() for c in law.covariances]))
        self.axes = axes.permute(1, 0, 2).reshape(data.shape[1], -1)
        self.back = axes.permute(0, 2, 1).reshape(-1, data.shape[1])
        self.offsets = torch.einsum("kd,kdr->kr", self.means, axes)

    def __call__(self, x, sigma):
        along = (x @ self.axes).reshape(len(x), *self.offsets.shape) - self.offsets
        total = self.variances + sigma[:, :, None] ** 2
        pulled = along / total
        logits = self.log_weights - 0.5 * ((along * pulled).sum(-1) + total.log().sum(-1))
        shares = logits.softmax(-1)
        spread = (shares[:, :, None] * self.variances * pulled).reshape(len(x), -1)
        return shares @ self.means + spread @ self.back


def by_hand(X, width, average=False, on_mixture=False):
    data = torch.as_tensor((X - X.mean(0)) / X.std(), dtype=torch.float32)
    variances = data.var(0)
    mixture = Mixture(data) if on_mixture else None
    network = ResidualMLP(2, width=width, n_hints=2 if on_mixture else 0)
    optimizer = torch.optim.AdamW(network.parameters(), lr=LR, fused=True)
    parameters = list(network.parameters())
    means = [p.detach().clone() for p in parameters]
    with Clock() as clock:
        for step in range(STEPS):
            x0 = data[torch.randint(len(data), (BATCH,))]
            sigma = torch.exp(MEAN + SPREAD * torch.randn(BATCH, 1))
            loss = gaussian_loss(network, x0, sigma, torch.randn_like(x0), variances, mixture)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if average:
                optimizer.param_groups[0]["lr"] = LR * (1 + math.cos(math.pi * step / STEPS)) / 2
                with torch.no_grad():
                    torch._foreach_lerp_(means, parameters, 1e-3)
    return clock.wall, clock.cpu


class Denoising(torch.nn.Module):
    """The loss as a module, for skorch."""

    def __init__(self, width, variances):
        super().__init__()
        self.network = ResidualMLP(2, width=width)
        self.register_buffer("variances", variances)

    def forward(self, x0):
        sigma = torch.exp(MEAN + SPREAD * torch.randn(len(x0), 1))
        return gaussian_loss(self.network, x0, sigma, torch.randn_like(x0), self.variances)


class Value(torch.nn.Module):
    """The criterion of a module that returns its loss."""

    def forward(self, loss, target):
        return loss


def skorch_stock(X, width):
    data = ((X - X.mean(0)) / X.std()).astype(np.float32)
    rounds = Rounds()
    NeuralNet(
        Denoising,
        criterion=Value,
        module__width=width,
        module__variances=torch.as_tensor(data.var(0)),
        optimizer=torch.optim.AdamW,
        optimizer__fused=True,
        lr=LR,
        batch_size=BATCH,
        max_epochs=round(STEPS * BATCH / len(X)),
        iterator_train__shuffle=True,
        train_split=None,
        verbose=0,
        callbacks=[rounds],
    ).fit(data, np.zeros(len(data), dtype=np.float32))
    return rounds.wall_, rounds.cpu_


class Timed(torch.nn.Module):
    """The network under the signatures of azula and of torchcfm."""

    def __init__(self, width):
        super().__init__()
        self.network = ResidualMLP(2, width=width)

    def forward(self, x, t):
        return self.network(x, t.expand(len(x)) if t.ndim == 0 else t.reshape(-1))


def azula_recipe(X, width):
    from azula.denoise import KarrasDenoiser
    from azula.noise import VPSchedule

    data = torch.as_tensor((X - X.mean(0)) / X.std(), dtype=torch.float32)
    denoiser = KarrasDenoiser(Timed(width), schedule=VPSchedule())
    optimizer = torch.optim.Adam(denoiser.parameters(), lr=LR)
    with Clock() as clock:
        for _ in range(STEPS):
            x = data[torch.randint(len(data), (BATCH,))]
            t = torch.rand(BATCH)
            loss = denoiser.loss(x, t)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    return clock.wall, clock.cpu


def torchcfm_recipe(X, width):
    from torchcfm.conditional_flow_matching import ConditionalFlowMatcher

    data = torch.as_tensor((X - X.mean(0)) / X.std(), dtype=torch.float32)
    network = Timed(width)
    optimizer = torch.optim.Adam(network.parameters())
    matcher = ConditionalFlowMatcher(sigma=0.1)
    with Clock() as clock:
        for _ in range(STEPS):
            optimizer.zero_grad()
            x1 = data[torch.randint(len(data), (BATCH,))]
            t, xt, ut = matcher.sample_location_and_conditional_flow(torch.randn_like(x1), x1)
            loss = torch.mean((network(xt, t) - ut) ** 2)
            loss.backward()
            optimizer.step()
    return clock.wall, clock.cpu


RUNS = {
    "NeuralScore": own,
    "NeuralScore on a mixture": lambda X, width: own(X, width, "mixture"),
    "by hand": by_hand,
    "by hand, with averaging and cosine": lambda X, width: by_hand(X, width, average=True),
    "by hand, on the mixture": lambda X, width: by_hand(X, width, on_mixture=True),
    "skorch as it comes": skorch_stock,
    "azula": azula_recipe,
    "torchcfm": torchcfm_recipe,
}


def ratio(seconds, name, other):
    """How often as fast one loop is as another, within a turn."""
    turns = zip(seconds[other], seconds[name], strict=True)
    return statistics.median(theirs / ours for (_, theirs), (_, ours) in turns)


def main():
    torch.set_num_threads(1)
    X, _ = make_moons(ROWS, random_state=0)
    rows = []
    for width in WIDTHS:
        seconds = {name: [] for name in RUNS}
        for turn in range(TURNS + 1):
            for name, run in RUNS.items():
                found = run(X, width)
                if turn:  # the first is for caches to warm
                    seconds[name].append(found)
        for name, found in seconds.items():
            wall, cpu = (statistics.median(v) for v in zip(*found, strict=True))
            same_loss = "by hand, on the mixture" if "on a mixture" in name else "by hand"
            rows.append(
                {
                    "width": width,
                    "loop": name,
                    "CPU ms per step": f"{1e3 * cpu / STEPS:.2f}",
                    "wall ms per step": f"{1e3 * wall / STEPS:.2f}",
                    "steps per CPU second": f"{STEPS / cpu:.0f}",
                    "speed, by hand = 1": f"**{ratio(seconds, name, 'by hand'):.2f}**",
                    "the same loss by hand = 1": f"{ratio(seconds, name, same_loss):.2f}"
                    if "NeuralScore" in name
                    else "",
                }
            )
            print(rows[-1], flush=True)
    text = table(rows, list(rows[0]))
    text += (
        f"\n\nMedians of {TURNS} turns of {STEPS} steps each; the ratio is of processor time "
        "within a turn, for the machine had other work. "
        + " ".join(__doc__.split("\n\n")[1].split())
    )
    write(
        "training_speed",
        "Seconds per training step",
        text,
        ("numpy", "torch", "skorch", "azula", "torchcfm"),
    )


if __name__ == "__main__":
    main()
