"""How good is a sample, or a density? Plain functions of two samples, and scorers for searches."""

from skdiffusion.metrics.c2st import c2st
from skdiffusion.metrics.coverage import (
    Coverage,
    expected_coverage,
    precision_recall_coverage,
)
from skdiffusion.metrics.discrepancy import (
    TwoSampleTest,
    energy_distance,
    energy_test,
    mmd,
    mmd_test,
)
from skdiffusion.metrics.frechet import frechet_distance
from skdiffusion.metrics.memorisation import (
    Memorisation,
    distance_to_closest_record,
    memorisation,
)
from skdiffusion.metrics.scorers import DensityScorer, SampleScorer, get_scorer, get_scorer_names
from skdiffusion.metrics.wasserstein import sliced_wasserstein

__all__ = [
    "Coverage",
    "DensityScorer",
    "Memorisation",
    "SampleScorer",
    "TwoSampleTest",
    "c2st",
    "distance_to_closest_record",
    "energy_distance",
    "energy_test",
    "expected_coverage",
    "frechet_distance",
    "get_scorer",
    "get_scorer_names",
    "memorisation",
    "mmd",
    "mmd_test",
    "precision_recall_coverage",
    "sliced_wasserstein",
]
