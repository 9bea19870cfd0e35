"""The API reference, from what the packages themselves call public."""

import importlib
import inspect
from pathlib import Path

SECTIONS = {
    "skdiffusion": "Estimators and schedules",
    "skdiffusion.estimators": "Base class of score estimators",
    "skdiffusion.geometry": "Geometry of a law",
    "skdiffusion.inspection": "Looking into models",
    "skdiffusion.compose": "Pipelines and daily use",
    "skdiffusion.metrics": "Quality of samples",
    "skdiffusion.schedules": "Noise schedules",
    "skdiffusion.discrete_schedule": "Schedules of trained networks",
    "skdiffusion.parameterizations": "What a network is asked for",
    "skdiffusion.targets": "Targets of blind fields",
    "skdiffusion.samplers": "Samplers",
    "skdiffusion.likelihood": "Densities along the flow",
    "skdiffusion.denoising_bound": "The denoising bound",
    "skdiffusion.flow": "The probability flow",
    "skdiffusion.noising": "Noise levels of data",
    "skdiffusion.models": "Score models as mathematical objects",
    "skdiffusion.networks": "Networks",
    "skdiffusion.networks.mlp": "The perceptron",
    "skdiffusion.networks.unet": "The U-Net",
    "skdiffusion.networks.transformer": "The transformer",
    "skdiffusion.networks.embedding": "Embeddings of noise levels",
    "skdiffusion.datasets": "Data and laws with known answers",
    "skdiffusion.utils.estimator_checks": "Checks for one's own models",
}


def names(package: str) -> list:
    """Public names of a package that have no shorter path, classes first; modules are left out."""
    module, parts = importlib.import_module(package), package.split(".")
    shorter = [importlib.import_module(".".join(parts[:n])) for n in range(1, len(parts))]
    found = [
        name
        for name in module.__all__
        if not inspect.ismodule(getattr(module, name))
        and not any(name in parent.__all__ for parent in shorter if hasattr(parent, "__all__"))
    ]
    return sorted(found, key=lambda name: (not inspect.isclass(getattr(module, name)), name))


def documented(package: str) -> tuple:
    """Classes and functions of a package, and its other public names: tables of names."""
    module = importlib.import_module(package)
    objects = [name for name in names(package) if callable(getattr(module, name))]
    return objects, [
        name for name in names(package) if name not in objects and name != "__version__"
    ]


def write_reference(folder: Path) -> None:
    """One page per package, and one that lists them."""
    folder.mkdir(exist_ok=True)
    pages = []
    for package, title in SECTIONS.items():
        objects, others = documented(package)
        lines = [title, "=" * len(title), "", f".. automodule:: {package}", ""]
        lines += [f".. currentmodule:: {package}", "", ".. autosummary::", "   :toctree: generated"]
        lines += ["   :nosignatures:", "", *(f"   {name}" for name in objects), ""]
        for name in others:
            lines += [f".. autodata:: {name}", "   :no-value:", ""]
        _write(folder / f"{package}.rst", "\n".join(lines))
        pages.append(package)
    index = [
        "API reference",
        "=============",
        "",
        "Every public name, by the package it is imported from.",
        "",
    ]
    index += [".. toctree::", "   :hidden:", "", *(f"   {page}" for page in pages), ""]
    for package, title in SECTIONS.items():
        objects, others = documented(package)
        title = f":doc:`{title} <{package}>`"
        index += [title, "-" * len(title), "", f".. currentmodule:: {package}", ""]
        index += [
            ".. autosummary::",
            "   :nosignatures:",
            "",
            *(f"   {name}" for name in objects),
            "",
        ]
        if others:
            index += ["Also " + ", ".join(f":obj:`~{package}.{name}`" for name in others) + ".", ""]
    _write(folder / "index.rst", "\n".join(index))


def _write(path, text):
    if not path.exists() or path.read_text() != text:  # an untouched page is not built again
        path.write_text(text)
