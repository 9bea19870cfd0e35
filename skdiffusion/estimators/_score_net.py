r"""The training loop: a skorch net whose loss is denoising.

.. math:: L(\theta) = E\, w\,\big|F_\theta(c_{in} x, c_{noise}) - (x_0 - c_{skip} x)/c_{out}\big|^2,
          \qquad x = x_0 + \sigma\varepsilon .

skorch brings optimizers, devices, callbacks and history; the epoch loop is our own, because a
network for rows takes less than a millisecond per step. Rows, levels and noise are drawn for many
steps at once, by generators seeded with the position in the stream of steps: training can be cut at
any such block and go on to the same weights. The learning rate rises, then falls as a cosine; the
weights that count are an exponential moving average. History and callbacks see a **round**: at
least one pass over the rows, and at least a fiftieth of the steps.
"""

from __future__ import annotations

import math
import time
from typing import Any, NamedTuple

import numpy as np
import torch
from skorch import NeuralNet

__all__ = ["Plan", "ScoreNet"]

BLOCK_NUMBERS, BLOCK_STEPS = 2_000_000, 64
"""Numbers and steps that are drawn at once, at most."""
RUN = ("average", "averaged", "step", "best", "since_best", "stopped")
"""What a net knows of its run, beside network, optimizer and history."""
AVERAGE_EVERY = 8
"""Steps between updates of the moving average."""
WARM_UP = 0.03
"""Share of the steps in which the learning rate rises."""


class Plan(NamedTuple):
    """What one training run is about."""

    rows: Any
    preconditioner: Any
    log_levels: torch.Tensor
    n_steps: int
    round_steps: int
    seed: int
    label_dropout: float
    curriculum: bool
    symmetry: float
    ema_decay: float
    patience: int
    bound: Any
    """Callable of a module: the validation bound in nats, or None."""
    checkpoint: Any
    """Checkpoint to go on from and to write, or None."""
    verbose: bool


class ScoreNet(NeuralNet):
    """A skorch net that is trained on a :class:`Plan`."""

    def __init__(self, module, *, steady=False, amp=False, **kwargs):
        self.steady = steady
        self.amp = amp
        kwargs.setdefault("criterion", torch.nn.MSELoss)
        kwargs.setdefault("train_split", None)
        super().__init__(module, **kwargs)

    @property
    def _default_callbacks(self):
        return []

    # ------------------------------------------------------------------ the loop

    def fit_loop(self, X, y=None, epochs=None, **_):
        """Train on the plan ``X``."""
        plan = X
        self._begin(plan)
        try:
            self._train(plan)
        except KeyboardInterrupt:
            self.interrupted_ = True
        return self

    def _train(self, plan):
        with _progress(plan, self.step_) as bar:
            while self.step_ < plan.n_steps and not self.stopped_:
                self.notify("on_epoch_begin", dataset_train=plan.rows, dataset_valid=None)
                started = time.perf_counter()
                stop = min(self.step_ + plan.round_steps, plan.n_steps)
                loss = self._round(plan, stop, bar)
                self._record(plan, loss, time.perf_counter() - started)
                bar.set_postfix(self._latest(), refresh=False)
                self.notify("on_epoch_end", dataset_train=plan.rows, dataset_valid=None)
                if plan.checkpoint is not None:
                    plan.checkpoint.write(self)

    def _begin(self, plan):
        if self.steady and getattr(self, "best_", None) is not None:
            self._go_on_from(self.best_[1])
        self.step_, self.best_, self.since_best_ = 0, None, 0
        self.stopped_ = self.interrupted_ = False
        if not (self.steady and hasattr(self, "average_")):
            self.average_ = [p.detach().clone() for p in self.module_.parameters()]
            self.averaged_ = 0
        if plan.checkpoint is not None:
            plan.checkpoint.read(self)

    def _go_on_from(self, weights):
        """Go on from the weights that were chosen, not from those that training ended with."""
        with torch.no_grad():
            for parameter, mean, chosen in zip(
                self.module_.parameters(), self.average_, weights, strict=True
            ):
                parameter.copy_(chosen)
                mean.copy_(chosen)

    def _round(self, plan, stop, bar):
        total, n = 0.0, 0
        first = self.step_
        while self.step_ < stop:
            block = self._block_steps(plan)
            end = min(self.step_ - self.step_ % block + block, stop)
            for batch in self._batches(plan, block, self.step_, end):
                self._set_rate(plan)
                total = total + self._step(plan, batch)
                n += 1
                self.step_ += 1
                if self.step_ % AVERAGE_EVERY == 0:
                    self._update_average(plan)
            bar.update(self.step_ - bar.n)
        loss = float(total) / n
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the training loss is not finite between steps {first} and {self.step_}: lower "
                f"lr (now {self.lr:g}), clip outliers in X, or use parameterization='gaussian'."
            )
        return loss

    def _step(self, plan, batch):
        weights, point, noise, target, condition, extra = batch
        module = self.module_
        if not module.training:
            module.train()
        if self.amp:
            with torch.autocast(point.device.type, torch.bfloat16):
                output = plan.preconditioner.output(module, point, noise, condition).float()
        else:
            output = plan.preconditioner.output(module, point, noise, condition)
        if output.shape != target.shape:  # it would be repeated to fit
            raise ValueError(
                f"module must return points of shape {tuple(target.shape)}, as it is given; "
                f"{type(module).__name__} returned {tuple(output.shape)}."
            )
        loss = (weights * (output - target).square()).mean()
        if plan.symmetry:
            loss = loss + plan.symmetry * _asymmetry(plan, module, point, noise, condition, extra)
        self.optimizer_.zero_grad(set_to_none=True)
        loss.backward()
        if _world() > 1:
            _average_gradients(module)
        self.optimizer_.step()
        return loss.detach()

    # ------------------------------------------------------------------ where training stands

    def state(self) -> dict:
        """What training goes on from, in plain values and tensors that it still changes."""
        return {
            "module": self.module_.state_dict(),
            "optimizer": self.optimizer_.state_dict(),
            "history": [dict(entry) for entry in self.history],
            **{name: getattr(self, f"{name}_") for name in RUN},
        }

    def return_to(self, state: dict) -> None:
        """Go back to a state, or on from that of another process."""
        self.module_.load_state_dict(state["module"])
        self.optimizer_.load_state_dict(state["optimizer"])
        self.history.clear()
        self.remember(state["history"])
        for name in RUN:
            setattr(self, f"{name}_", state[name])

    def remember(self, rounds: list[dict]) -> None:
        """Put down rounds that were trained before."""
        for entry in rounds:
            self.history.new_epoch()
            for name, value in entry.items():
                if name != "batches":
                    self.history.record(name, value)

    # ------------------------------------------------------------------ what a step sees

    def _block_steps(self, plan):
        d = len(plan.preconditioner.variances)
        return max(1, min(BLOCK_STEPS, BLOCK_NUMBERS // (self.batch_size * d)))

    def _batches(self, plan, block, start, end):
        """Batches of the steps ``start`` to ``end``, which lie in one block."""
        origin = start - start % block
        size = self.batch_size
        x0, condition = plan.rows.batch(origin * size, (origin + block) * size)
        generator = torch.Generator(x0.device).manual_seed(
            int(np.random.SeedSequence([plan.seed, origin]).generate_state(1, np.uint64)[0] >> 1)
        )
        torch.manual_seed(generator.initial_seed())  # what the network itself draws: dropout
        sigma = self._levels(plan, block, origin, generator, x0.device)
        x = torch.randn(x0.shape, generator=generator, device=x0.device)
        x.mul_(sigma).add_(x0)
        if condition is not None and plan.label_dropout:
            kept = torch.rand((len(x0), 1), generator=generator, device=x0.device)
            condition = condition * (kept >= plan.label_dropout)
        extra = None
        if plan.symmetry:
            extra = torch.randn(x0.shape, generator=generator, device=x0.device)
        with torch.no_grad():
            found = plan.preconditioner.coefficients(sigma)
            skip = plan.preconditioner.skip(x, sigma, found, condition)
            target = (x0 - skip) / found.out
            point = plan.preconditioner.point(x, sigma, found, skip)
            weights = found.weight.expand(len(x), -1)
            noise = plan.preconditioner.noise(sigma)
            if extra is not None:
                extra = extra, found.input.expand_as(x), found.out.expand_as(x)
        rank, world = _rank(), _world()
        for k in range(start - origin, end - origin):
            rows = slice(k * size + rank * size // world, k * size + (rank + 1) * size // world)
            yield (
                weights[rows],
                point[rows],
                noise[rows],
                target[rows],
                None if condition is None else condition[rows],
                None if extra is None else [part[rows] for part in extra],
            )

    def _levels(self, plan, block, origin, generator, device):
        """One level per row, stratified within every batch, as a column."""
        size, table = self.batch_size, plan.log_levels
        strata = torch.rand((block, size), generator=generator, device=device)
        strata += torch.arange(size, device=device)
        share = strata / size
        if plan.curriculum:  # from the easy half of the levels to all of them
            easy = min(1.0, 2 * (origin + 0.5 * block) / plan.n_steps)
            share = 1 - share * (0.5 + 0.5 * easy)
        # rows of a batch come in random order already, but their strata must not follow it
        place = share.clamp_(0, 1) * (len(table) - 1)
        below = place.long().clamp_(max=len(table) - 2)
        level = torch.lerp(table[below], table[below + 1], place - below)
        return level.exp_().reshape(-1, 1)

    # ------------------------------------------------------------------ rate and average

    def _set_rate(self, plan):
        done = self.step_ / plan.n_steps
        rate = min(1.0, (self.step_ + 1) / (WARM_UP * plan.n_steps + 1))
        if not self.steady:
            rate *= 0.5 * (1 + math.cos(math.pi * done))
        for group in self.optimizer_.param_groups:
            group["lr"] = self.lr * rate

    def _update_average(self, plan):
        self.averaged_ += 1
        decay = min(plan.ema_decay**AVERAGE_EVERY, (self.averaged_) / (self.averaged_ + 9))
        parameters = [p.detach() for p in self.module_.parameters()]
        if decay == 0:
            for mean, parameter in zip(self.average_, parameters, strict=True):
                mean.copy_(parameter)
        else:
            torch._foreach_lerp_(self.average_, parameters, 1 - decay)

    # ------------------------------------------------------------------ rounds

    def _record(self, plan, loss, seconds):
        self._update_average(plan)
        self.history.record("epoch", self.step_ * self.batch_size / plan.rows.length)
        self.history.record("step", self.step_)
        self.history.record("train_loss", loss)
        self.history.new_batch()  # all of the round, for callbacks that look at the last one
        self.history.record_batch("train_loss", loss)
        self.history.record("dur", seconds)
        if plan.bound is None:
            return
        bound = plan.bound(self.averaged_module())
        self.history.record("valid_bound", bound)
        best = self.best_ is None or bound > self.best_[0]
        self.history.record("valid_bound_best", best)
        if best:
            self.best_ = bound, [p.clone() for p in self.average_]
            self.since_best_ = 0
        else:
            self.since_best_ += 1
            self.stopped_ = self.since_best_ >= plan.patience

    def _latest(self):
        last = self.history[-1]
        names = {"train_loss": "loss", "valid_bound": "bound"}
        return {shown: f"{last[name]:.4g}" for name, shown in names.items() if name in last}

    @property
    def plain_module(self):
        """The network itself, whether or not it was compiled."""
        return getattr(self.module_, "_orig_mod", self.module_)

    def averaged_module(self, weights: Any = None):
        """A copy of the network with the averaged weights, or with those given."""
        import copy

        module = copy.deepcopy(self.plain_module)
        with torch.no_grad():
            for parameter, mean in zip(
                module.parameters(), self.average_ if weights is None else weights, strict=True
            ):
                parameter.copy_(mean)
        return module.eval()

    def final_module(self):
        """The network of best validation bound, or else the averaged one."""
        return self.averaged_module(None if self.best_ is None else self.best_[1])


def _asymmetry(plan, module, point, noise, condition, extra):
    """Mean square of ``(A - A') v`` for the denoiser's Jacobian, as a share of its scale."""
    v, inward, outward = extra

    def output(u):
        return plan.preconditioner.output(module, u, noise, condition)

    _, forward = torch.func.jvp(output, (point,), (inward * v,))
    _, pullback = torch.func.vjp(output, point)
    difference = outward * forward - inward * pullback(outward * v)[0]
    return (difference / (inward * outward).mean(-1, keepdim=True)).square().mean()


# ---------------------------------------------------------------------- several processes


def _distributed():
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _world() -> int:
    return torch.distributed.get_world_size() if _distributed() else 1


def _rank() -> int:
    return torch.distributed.get_rank() if _distributed() else 0


def _average_gradients(module):
    """The mean of the gradients of all processes, in one message."""
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    flat = torch.cat([g.reshape(-1) for g in gradients])
    torch.distributed.all_reduce(flat)
    flat /= _world()
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def _progress(plan, step):
    from tqdm.auto import tqdm

    return tqdm(
        total=plan.n_steps, initial=step, disable=not plan.verbose or _rank() > 0, unit="step"
    )
