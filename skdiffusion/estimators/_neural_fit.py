"""One training run of a NeuralScore, from its parameters and rows to its fitted state."""

from __future__ import annotations

import contextlib
import copy
import re
from typing import Any

import numpy as np
import torch
from skorch import NeuralNet

from skdiffusion.estimators._held_out import Referee, split
from skdiffusion.estimators._neural_base import Base, serves
from skdiffusion.estimators._neural_survey import Survey, survey
from skdiffusion.estimators._own_clock import fitted_level_estimator, some_rows
from skdiffusion.estimators._score_net import BLOCK_STEPS, Plan, ScoreNet
from skdiffusion.estimators._training_checkpoint import Checkpoint
from skdiffusion.estimators._training_levels import level_quantiles
from skdiffusion.estimators._training_rows import RowStream, read_rows
from skdiffusion.models.neural import NeuralModel, Preconditioner
from skdiffusion.networks import NETWORKS, check_network
from skdiffusion.networks.device import check_device
from skdiffusion.networks.images import check_input_shape
from skdiffusion.networks.mlp import ResidualMLP
from skdiffusion.parameterizations import (
    GaussianParameterization,
    MixtureParameterization,
    check_parameterization,
)
from skdiffusion.schedules import check_schedule
from skdiffusion.utils.random import as_generator, row_keys
from skdiffusion.utils.validation import check_count, lookup
from skdiffusion.utils.warning import warn_user

__all__ = ["fit_network"]

N_ROUNDS = 50
FEW_ROWS, FEW_PER_COLUMN = 1000, 50
"""Below both so many rows and so many per column, a perceptron soon knows the rows by heart;"""
DROPOUT = 0.4
"""it then leaves out this share of its units while training."""
PLACED_FROM = 8
"""Columns from which on a direction is worth telling; in a plane it jumps at the mean."""
SMALL_STEP = 256 * 512**2
"""Multiplications in a layer up to which a second thread brings nothing."""
NOT_OF_THE_RUN = ("checkpoint", "verbose", "callbacks", "device", "random_state")
PLACE = re.compile(" at 0x[0-9a-f]+")
"""Where an object lies in memory, in what is printed of it: elsewhere in every process."""
OPTIMIZERS = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam, "sgd": torch.optim.SGD}


def fit_network(est: Any, X: Any, codes: Any, labels: Any, weights: Any, partial: bool = False):
    """Train the network of an estimator and set its fitted attributes; on failure set nothing."""
    _check_tools(est)
    goes_on = partial and hasattr(est, "model_")
    checkpoint = None if est.checkpoint is None or partial else Checkpoint(est.checkpoint)
    seed = _seed(est, checkpoint, goes_on)
    validates = est.early_stopping and not partial
    order, held_out = split(X, weights, seed, est.validation_fraction if validates else None)
    base, last = None, est.module_ if hasattr(est, "model_") else None
    if goes_on:
        found = est._survey
        preconditioner, last = _all_kept(est._network_model().preconditioner, last)
    else:
        found = _survey(est, X, order, weights, seed)
        has_classes = labels is not None and labels.classes is not None
        classes = codes if has_classes else None
        # a first batch does not say what law will come, and a mixture of all labels holds
        # samples to itself long before the network can tell it where each label is
        known = not partial and (labels is None or has_classes)
        counts = np.ones(len(order)) if weights is None else weights[order]
        of_classes = None if classes is None else counts @ classes[order]
        known = known and serves(counts.sum(), len(found.variances), of_classes)
        asked = _parameterization(est, known, partial)
        if isinstance(asked, MixtureParameterization):
            base = Base(asked, X, weights, found.coordinates, seed, classes)
        preconditioner = _preconditioner(est, found, asked, base and base.fit(order))
        if base is not None and preconditioner.hints:
            preconditioner.columns = _columns(est, base, order, held_out, found.low)
    referee = None if held_out is None else Referee(X, codes, held_out, found)
    reads_levels = not (est.noise_conditioning or goes_on)
    level_estimator = _level_estimator(est, X, order, found, seed) if reads_levels else None
    device = check_device(est.device)
    rows = RowStream(X, order, found.coordinates, codes, weights, seed, device)
    if goes_on and hasattr(est, "net_") and last is est.module_:
        net = est.net_
        if est.net is None:
            net.lr = est.lr
    else:
        few = rows.length < min(FEW_ROWS, FEW_PER_COLUMN * len(found.variances))
        # a first batch does not say how many rows will come
        n_hints = preconditioner.n_inputs - len(found.variances)
        net = _net(est, found, labels, device, few and not partial, n_hints)
    net.batch_size, n_steps = _budget(est, rows.length, len(found.variances), partial)
    net.steady = partial
    if checkpoint is not None:
        run = n_steps, net.batch_size, len(order), None if codes is None else codes[order]
        checkpoint.fingerprint = _fingerprint(est, found, seed, *run)
    levels = level_quantiles(est._schedule(), found.variances, found.low, found.high, seed)
    plan = Plan(
        rows=rows,
        preconditioner=preconditioner,
        log_levels=torch.as_tensor(levels, dtype=torch.float32, device=device),
        n_steps=n_steps,
        round_steps=_round_steps(n_steps, rows.length / net.batch_size),
        seed=seed,
        label_dropout=0.0 if labels is None else est.label_dropout,
        curriculum=bool(est.curriculum),
        symmetry=0.0 if isinstance(est.conservative, bool) else float(est.conservative),
        ema_decay=est.ema_decay,
        patience=est.n_iter_no_change,
        bound=referee and _bound(referee, found, preconditioner),
        checkpoint=checkpoint,
        verbose=bool(est.verbose),
    )
    rounds = est.history_ if goes_on else []
    _train(net, plan, last if est.warm_start or partial else None, rounds)
    if base is not None and referee is not None:
        preconditioner = copy.copy(preconditioner)
        model = _judged(net.final_module(), referee, found, preconditioner)
        preconditioner.gain = referee.gain(model, preconditioner.base)
        preconditioner.base = base.go_on(held_out.everyone)
    _set_fitted(est, net, found, preconditioner, labels, goes_on)
    if reads_levels:
        est.level_estimator_ = level_estimator
    elif not goes_on:
        est.__dict__.pop("level_estimator_", None)
    if checkpoint is not None and not net.interrupted_:  # done: nothing to go on from
        checkpoint.remove()


def _check_tools(est):
    """Refuse what is none of torch's and skorch's, before anything is computed."""
    if est.net is not None and not isinstance(est.net, NeuralNet):
        raise ValueError(f"net must be a skorch.NeuralNet; got {est.net!r}.")
    if isinstance(est.optimizer, str) or not isinstance(est.optimizer, type):
        lookup(est.optimizer, OPTIMIZERS, "optimizer", "a torch optimizer class")
    if est.input_shape is not None:
        check_input_shape(est.input_shape, est.n_features_in_)
    callbacks = [] if est.callbacks is None else est.callbacks
    if not isinstance(callbacks, (list, tuple)) or not all(map(_is_callback, callbacks)):
        raise ValueError(f"callbacks must be a list of skorch callbacks; got {est.callbacks!r}.")


def _is_callback(callback):
    """Whether skorch takes it: an object or a class, alone or with a name before it."""
    if isinstance(callback, tuple) and len(callback) == 2:
        callback = callback[1]
    return hasattr(callback, "on_epoch_end")


def _seed(est, checkpoint, goes_on):
    if checkpoint is not None and checkpoint.exists() and est.random_state is None:
        return checkpoint.seed()
    seed = int(as_generator(est.random_state).integers(2**31))
    if goes_on:  # other rows, other noise
        seed = int(np.random.SeedSequence([seed, est.n_steps_]).generate_state(1)[0] >> 1)
    return seed


def _survey(est, X, order, weights, seed):
    turns = _is_perceptron(est)
    return survey(
        X,
        order,
        weights,
        scaling=est.scaling if turns or est.scaling != "auto" else "global",
        rotate=turns,
        sigma_min=est.sigma_min,
        sigma_max=est.sigma_max,
        seed=seed,
    )


def _level_estimator(est, X, order, found, seed):
    """What tells a sampler of a blind network the level of its points, in its coordinates."""
    scale, unit = found.coordinates.scale, found.unit
    rows = read_rows(X, some_rows(order, len(found.variances))) / (scale / unit)
    rows = np.unique(rows, axis=0)  # in an order of their own, and no row its own neighbour
    return fitted_level_estimator(
        est.level_estimator, rows, found.low * unit, found.high * unit, seed
    )


def _all_kept(preconditioner, module):
    """The same denoiser, of which all is kept that the network adds: so far it adds less.

    What is learned later would be cut down, or out, by what held-out rows once said. A network that
    is not of this package may end in something else.
    """
    if preconditioner.gain == 1.0 or type(module) not in map(check_network, NETWORKS):
        return preconditioner, module
    preconditioner, module = copy.copy(preconditioner), copy.deepcopy(module)
    for weights in module.last.parameters():
        weights *= preconditioner.gain
    preconditioner.gain = 1.0
    return preconditioner, module


def _train(net, plan, last, rounds):
    device = torch.device(net.device)
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(cuda), _threads_for(net, plan, device):
        torch.manual_seed(plan.seed)
        goes_on = net.initialized_
        if not goes_on:
            net.initialize()
            if device.type == "cuda":  # the layout that its convolutions are fast in
                net.module_.to(memory_format=torch.channels_last)
            if last is not None:
                _begin_with(net.plain_module, last)
            net.remember(rounds)
        before = copy.deepcopy(net.state()) if goes_on else None
        try:
            net.partial_fit(plan)
        except BaseException:  # an interrupt too
            if goes_on:
                net.return_to(before)
            raise
    if net.interrupted_:
        warn_user(
            f"training was interrupted after {net.step_} of {plan.n_steps} steps; the model is "
            "what was learned up to then.",
        )


def _begin_with(module, last):
    """Give a network the weights of the last one, which must be of its shape."""
    ours, theirs = module.state_dict(), last.state_dict()
    if {k: v.shape for k, v in ours.items()} != {k: v.shape for k, v in theirs.items()}:
        raise ValueError(
            "the weights of the last fit do not fit this network: warm_start needs rows of as many "
            "columns, the same labels, parameterization and sizes; fit without it, or a clone."
        )
    module.load_state_dict(theirs)


def _set_fitted(est, net, found, preconditioner, labels, goes_on):
    module = net.final_module()
    inner = _model(module, found, preconditioner, labels)
    if isinstance(net.module, type):
        inner.arguments = net.get_params_for("module")
    est.model_ = found.in_units_of_rows(inner)
    est.far_field_ = found.far_field
    est.scale_ = found.scale
    est.sigma_min_, est.sigma_max_ = est.model_.sigma_range
    est._survey = found
    est.net_ = net
    est.history_ = [
        {name: value for name, value in entry.items() if name != "batches"}
        for entry in net.history
        if "step" in entry  # an interrupted round has none
    ]
    if not goes_on:
        est._begun_with = est._of_the_model()
    est.n_steps_ = net.step_ + (est.n_steps_ if goes_on else 0)
    est.validation_bound_ = float("nan") if net.best_ is None else net.best_[0]


def _model(module, found: Survey, preconditioner, labels, dtype=None):
    return NeuralModel(
        module, preconditioner, len(found.variances), (found.low, found.high), labels, dtype
    )


def _parameterization(est, law_is_known, partial):
    asked = est.parameterization
    if isinstance(asked, str) and asked == "auto":
        asked = _default_parameterization(est, law_is_known, partial)
    return check_parameterization(asked)


def _preconditioner(est, found, parameterization, mixture):
    if mixture is not None:
        hints = _takes_hints(est)
    else:
        hints = isinstance(parameterization, GaussianParameterization) and _knows_place(est, found)
    return Preconditioner(
        parameterization,
        est._schedule() or check_schedule("edm"),
        found.variances,
        bool(est.noise_conditioning),
        est.conservative is True,
        mixture,
        hints,
    )


def _columns(est, base, order, held_out, low):
    """Laws of the columns that the network is told of; weights of a last fit know those of then."""
    if est.warm_start and hasattr(est, "model_"):
        last = est._network_model().preconditioner.columns
        return None if last is None else base.column_laws(order, held_out, low, last.index)
    return None if held_out is None else base.column_laws(order, held_out, low)


def _default_parameterization(est, law_is_known, partial):
    if est.warm_start and not partial and hasattr(est, "model_"):
        # the weights are an answer to what was asked last
        return est._network_model().preconditioner.parameterization
    if not _is_perceptron(est):
        return "edm"
    on_mixture = law_is_known and est.noise_conditioning and _takes_hints(est)
    return "mixture" if on_mixture else "gaussian"


def _knows_place(est, found):
    """Whether the network can be told a point's place in the noised Gaussian, and gains by it."""
    return _takes_hints(est) and est.noise_conditioning and len(found.variances) >= PLACED_FROM


def _takes_hints(est):
    """Whether the network can look at more than the point; as a gradient it has no room for it."""
    module = check_network(est.module) if est.net is None else est.net.module
    return module is ResidualMLP and not est.conservative


def _is_perceptron(est):
    """Whether the network sees a row as a whole, so that its columns may be turned."""
    return _shape(est) is None


def _shape(est):
    return est._nested.get("module__input_shape", est.input_shape)


def _net(est, found, labels, device, few, n_hints):
    d = len(found.variances)
    n_conditions = 0 if labels is None else labels.n_conditions
    if est.net is None:
        params = {"module": check_network(est.module), "lr": est.lr, "optimizer": est.optimizer}
        params.update(est._nested)
        if est.module == "mlp":
            params.setdefault("module__width", _width(d))
            # the penalty on asymmetry compares two passes, which must drop the same units
            if few and isinstance(est.conservative, bool):
                params.setdefault("module__dropout", DROPOUT)
    else:
        params = dict(est.net.get_params(deep=False))
        for name in ("criterion", "train_split", "verbose", "device", "compile", "steady", "amp"):
            params.pop(name, None)
    optimizer = params["optimizer"]
    if isinstance(optimizer, str):
        params["optimizer"] = lookup(optimizer, OPTIMIZERS, "optimizer", "a torch optimizer class")
        if optimizer != "sgd" and _can_fuse(device):
            params.setdefault("optimizer__fused", True)
    params["module__n_features"] = d
    params["module__n_conditions"] = n_conditions
    if n_hints:
        params["module__n_hints"] = n_hints
    if est.input_shape is not None and params["module"] is not ResidualMLP:
        params["module__input_shape"] = tuple(est.input_shape)
    callbacks = list(params.pop("callbacks", None) or []) + list(est.callbacks or [])
    net = ScoreNet(
        **params,
        callbacks=callbacks,
        device=str(device),
        verbose=0,
        amp=bool(est.amp),
        compile=bool(est.compile),
    )
    return net


def _width(d):
    return 128 if d <= 16 else 256 if d <= 128 else 512


def _budget(est, n, d, partial):
    """Batch size and number of steps."""
    batch = 256 if est.batch_size == "auto" else est.batch_size
    if partial:
        return batch, max(1, round(n / batch))
    if est.max_epochs != "auto":
        return batch, max(1, round(est.max_epochs * n / batch))
    steps = 4000 * (max(n, 500) / 2000) ** 0.25 * (max(d, 2) / 2) ** 0.15
    return batch, int(np.clip(steps, 2000, 40_000))


def _fingerprint(est, found, seed, n_steps, batch, n_rows, codes):
    """What must be the same for a run to go on: the seed, the data, the shape of training."""
    parameters = {k: v for k, v in est.get_params().items() if k not in NOT_OF_THE_RUN}
    return {
        "seed": seed,
        "n_steps": n_steps,
        "batch_size": batch,
        "n_rows": n_rows,
        "mean": found.far_field.mean.tolist(),
        "variances": found.variances.tolist(),
        "labels": None if codes is None else row_keys(codes.T).tolist(),
        "parameters": PLACE.sub("", repr(parameters)),
    }


def _round_steps(n_steps, steps_per_epoch):
    """Steps of a round, in whole blocks."""
    steps = max(n_steps / N_ROUNDS, min(steps_per_epoch, n_steps))
    return BLOCK_STEPS * max(1, round(steps / BLOCK_STEPS))


def _bound(referee, found, preconditioner):
    """The validation bound as a function of the network."""
    return lambda module: referee.bound(_judged(module, referee, found, preconditioner))


def _judged(module, referee, found, preconditioner):
    """The network as held-out rows see it: whose labels are codes, in single precision."""
    return _model(module, found, preconditioner, referee.labels, torch.float32)


@contextlib.contextmanager
def _threads_for(net, plan, device):
    """One thread where a step is too small for two: waiting for each other costs more."""
    before = torch.get_num_threads()
    small = device.type == "cpu" and net.module is ResidualMLP
    if small:
        width = check_count(getattr(net, "module__width", 1), "width")
        width = max(width, len(plan.preconditioner.variances))
        small = net.batch_size * width**2 < SMALL_STEP
    if small:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if small:
            torch.set_num_threads(before)


def _can_fuse(device):
    """Whether Adam takes its step in one kernel here: on the CPU since torch 2.4."""
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    return device.type == "cuda" or (device.type == "cpu" and version >= (2, 4))
