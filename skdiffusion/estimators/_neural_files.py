"""A NeuralScore in a folder: ``config.json`` for the reader, ``weights.safetensors`` for numbers.

A network that is not told the noise level has a regressor beside it that reads it: skops keeps that
in ``level_estimator.skops``, and gives back no type but those named here. Loading builds objects of
this package by their names and fills in arrays: nothing in the folder is executed, which a pickle
cannot promise.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from skdiffusion._version import __version__
from skdiffusion.estimators._neural_survey import Survey
from skdiffusion.estimators._training_rows import Coordinates
from skdiffusion.models import (
    GaussianModel,
    LabelCode,
    MixtureModel,
    NeuralModel,
    Preconditioner,
    SpectralCovariance,
)
from skdiffusion.models.column_laws import ColumnLaws
from skdiffusion.models.labelled_mixture import LabelledMixture
from skdiffusion.models.neural import rebuilt
from skdiffusion.networks import NETWORKS, check_network
from skdiffusion.parameterizations import PARAMETERIZATIONS
from skdiffusion.samplers import SAMPLERS, NesterovSampler
from skdiffusion.schedules import SCHEDULES
from skdiffusion.utils.arrays import to_numpy
from skdiffusion.utils.validation import lookup

__all__ = ["load", "save"]

CLASSES = {
    cls.__name__: cls
    for cls in (
        *PARAMETERIZATIONS.values(),
        *SCHEDULES.values(),
        *SAMPLERS.values(),
        NesterovSampler,
    )
}
"""What a configuration may name."""
OPTIMIZERS = {name: kind for name, kind in vars(torch.optim).items() if isinstance(kind, type)}
READS_LEVELS = [
    "skdiffusion.estimators._noise_features.NoiseFeatures",
    "skdiffusion.estimators.noise_level.NoiseLevelEstimator",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.metrics._dist_metrics.EuclideanDistance64",
    "sklearn.neighbors._kd_tree.KDTree",
]
"""Types of the default level estimator that skops does not trust of itself."""
LEVEL_FILE = "level_estimator.skops"
COLUMNS = ("index", "weights", "centres", "widths")
FITTED = ("scale_", "sigma_min_", "sigma_max_", "n_steps_", "validation_bound_", "n_features_in_")


def save(est: Any, path: Any) -> None:
    """Write a fitted estimator."""
    from safetensors.numpy import save_file

    folder = Path(path)
    model = est._network_model()
    found, labels = est._survey, model.labels
    config = {
        "format": "skdiffusion.NeuralScore",
        "version": __version__,
        "parameters": _all_written(_parameters(est)),
        "fitted": {name: getattr(est, name) for name in FITTED},
        "feature_names": getattr(est, "feature_names_in_", np.array([])).tolist(),
        "network": {"name": _name(model.module), "arguments": _all_written(model.arguments)},
        "parameterization": _written("parameterization", model.preconditioner.parameterization),
        "schedule": _written("schedule", model.preconditioner.schedule),
        "noise_conditioning": model.preconditioner.noise_conditioning,
        "conservative": model.preconditioner.conservative,
        "hints": model.preconditioner.hints,
        "gain": model.preconditioner.gain,
        "low": found.low,
        "high": found.high,
        "labels": None if labels is None else _labels_written(labels),
        "history": [_all_written(entry) for entry in est.history_],
    }
    arrays = {f"network.{k}": to_numpy(v) for k, v in model.module.state_dict().items()}
    covariance = found.far_field.covariance
    arrays |= {
        "far_field.mean": found.far_field.mean,
        "far_field.variances": covariance.variances,
        "far_field.residual": np.array(covariance.residual),
        "variances": found.variances,
        "shift": found.coordinates.shift,
        "scale": np.asarray(found.coordinates.scale),
    }
    if covariance.axes is not None:
        arrays["far_field.axes"] = covariance.axes
    if found.coordinates.rotation is not None:
        arrays["rotation"] = found.coordinates.rotation
    base = model.preconditioner.base
    if base is not None:
        arrays |= _mixture_written(base.law, "base.")
        for k, law in enumerate(base.classes):
            arrays |= _mixture_written(law, f"base.{k}.")
    columns = model.preconditioner.columns
    if columns is not None:
        arrays |= {f"columns.{name}": getattr(columns, name) for name in COLUMNS}
    text = json.dumps(config, indent=2)  # whatever cannot be written fails before anything is
    levels = _level_estimators_written(est)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {k: np.array(v, order="C") for k, v in arrays.items()}, folder / "weights.safetensors"
    )
    (folder / LEVEL_FILE).unlink(missing_ok=True)
    if levels is not None:
        (folder / LEVEL_FILE).write_bytes(levels)
    (folder / "config.json").write_text(text)


def load(cls: type, path: Any, module: Any = None):
    """Read a fitted estimator."""
    from safetensors.numpy import load_file

    folder = Path(path)
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder} holds no config.json: a folder written by save is needed.")
    config = json.loads((folder / "config.json").read_text())
    if config.get("format") != "skdiffusion.NeuralScore":
        raise ValueError(f"{folder} holds no NeuralScore; its format is {config.get('format')!r}.")
    arrays = load_file(folder / "weights.safetensors")
    network = _network(config["network"]["name"], module)
    parameters = _all_read(config["parameters"])
    if module is not None:
        parameters["module"] = module
    est = cls(**parameters)
    for name, value in config["fitted"].items():
        setattr(est, name, value)
    if config["feature_names"]:
        est.feature_names_in_ = np.array(config["feature_names"], dtype=object)
    covariance = SpectralCovariance(
        arrays["far_field.variances"],
        arrays.get("far_field.axes"),
        float(arrays["far_field.residual"]),
    )
    coordinates = Coordinates(arrays["shift"], arrays["scale"], arrays.get("rotation"))
    found = Survey(
        GaussianModel(arrays["far_field.mean"], covariance),
        coordinates,
        arrays["variances"],
        config["low"],
        config["high"],
    )
    base = None
    if "base.weights" in arrays:
        classes = []
        while f"base.{len(classes)}.weights" in arrays:
            classes.append(_mixture_read(arrays, f"base.{len(classes)}."))
        base = LabelledMixture(_mixture_read(arrays, "base."), classes)
    columns = None
    if "columns.index" in arrays:
        own = (arrays[f"columns.{name}"] for name in COLUMNS)
        columns = ColumnLaws(*own, coordinates.rotation)
    preconditioner = Preconditioner(
        _read(config["parameterization"]),
        _read(config["schedule"]),
        arrays["variances"],
        config["noise_conditioning"],
        config["conservative"],
        base,
        config.get("hints", False),
        config.get("gain", 1.0),
        columns,
    )
    arguments = _all_read(config["network"]["arguments"])
    weights = {k.removeprefix("network."): v for k, v in arrays.items() if k.startswith("network.")}
    inner = NeuralModel(
        rebuilt(network, weights, arguments),
        preconditioner,
        len(found.variances),
        (found.low, found.high),
        None if config["labels"] is None else _labels_read(config["labels"]),
        arguments=arguments,
    )
    if (folder / LEVEL_FILE).is_file():
        found_levels = _skops().load(folder / LEVEL_FILE, trusted=READS_LEVELS)
        est.level_estimator, est.level_estimator_ = found_levels
    est._survey, est.history_ = found, config["history"]
    est._begun_with = est._of_the_model()
    est.model_, est.far_field_ = found.in_units_of_rows(inner), found.far_field
    return est


def _mixture_written(law, prefix):
    parts = {
        "weights": law.weights,
        "means": law.means,
        "variances": np.stack([c.variances for c in law.covariances]),
        "axes": np.stack([c.axes for c in law.covariances]),
        "residuals": np.array([c.residual for c in law.covariances]),
    }
    return {prefix + name: part for name, part in parts.items()}


def _mixture_read(arrays, prefix):
    parts = (arrays[prefix + name] for name in ("variances", "axes", "residuals"))
    covariances = [SpectralCovariance(*part) for part in zip(*parts, strict=True)]
    return MixtureModel(arrays[prefix + "weights"], arrays[prefix + "means"], covariances)


def _level_estimators_written(est):
    """The bytes of what reads noise levels, as given and as fitted; ``None`` without it."""
    if not hasattr(est, "level_estimator_"):
        return None
    skops = _skops()
    written = skops.dumps([est.level_estimator, est.level_estimator_])
    others = sorted(set(skops.get_untrusted_types(data=written)) - set(READS_LEVELS))
    if others:
        raise ValueError(
            "save writes level estimators of types that skops trusts and of scikit-learn's trees; "
            f"this one holds {', '.join(others)}: pickle the estimator instead."
        )
    return written


def _skops():
    try:
        import skops.io
    except ImportError as error:
        raise ImportError(
            "a network that is not told the noise level is saved and loaded with its level "
            "estimator, which needs skops: pip install skops."
        ) from error
    return skops.io


def _parameters(est):
    """Parameters that go into the configuration."""
    given = est.get_params(deep=False)
    return given if not hasattr(est, "level_estimator_") else {**given, "level_estimator": None}


def _all_written(values, of=""):
    return {name: _written(of + name, value) for name, value in (values or {}).items()}


def _written(name, value):
    """A value as JSON: plain ones as they are, objects of this package and optimizers by name."""
    kind = type(value).__name__
    if CLASSES.get(kind) is type(value):
        parameters = _all_written(value.get_params(deep=False), of=f"{name}__")
        return {"class": kind, "parameters": parameters}
    if isinstance(value, type) and name == "module":
        return {"class": value.__name__}
    if isinstance(value, type) and OPTIMIZERS.get(value.__name__) is value:
        return {"optimizer": value.__name__}
    if isinstance(value, np.generic) and value.dtype.kind in "biufU":
        return value.item()
    if isinstance(value, (Path, torch.device)):
        return str(value)
    if isinstance(value, tuple):
        return {"tuple": _written(name, list(value))}
    if isinstance(value, list):
        return [_written(name, part) for part in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ValueError(
        f"save writes numbers, texts and objects of this package; {name} is {value!r}: pickle "
        "the estimator, or set the parameter to None first."
    )


def _all_read(values):
    return {name: _read(value) for name, value in values.items()}


def _read(value):
    if isinstance(value, list):
        return [_read(part) for part in value]
    if not isinstance(value, dict):
        return value
    if "tuple" in value:
        return tuple(_read(value["tuple"]))
    if "optimizer" in value:
        return lookup(value["optimizer"], OPTIMIZERS, "optimizer of torch")
    if "parameters" not in value:  # a class of the user's own
        return value["class"]
    if value["class"] not in CLASSES:
        raise ValueError(f"unknown class {value['class']!r} in config.json.")
    return CLASSES[value["class"]](**_all_read(value["parameters"]))


def _name(module):
    for name in NETWORKS:
        if type(module) is check_network(name):
            return name
    return type(module).__name__


def _network(name, module):
    if module is not None:
        return check_network(module)
    if name not in NETWORKS:
        raise ValueError(
            f"the network is a class {name!r} of its author's own: load(path, module={name})."
        )
    return check_network(name)


def _labels_written(labels):
    if labels.classes is None:
        return {"mean": labels.mean, "scale": labels.scale}
    return {"classes": [_written("a class label", label) for label in labels.classes]}


def _labels_read(written):
    if "classes" in written:
        return LabelCode(written["classes"])
    labels = LabelCode([0.0, 0.5])
    labels.mean, labels.scale = written["mean"], written["scale"]
    return labels
