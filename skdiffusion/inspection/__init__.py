"""Looking into data and models: reports, comparisons, pictures."""

from skdiffusion.inspection._reach_align_slide_display import ReachAlignSlideDisplay
from skdiffusion.inspection.conservativity import ConservativityDisplay
from skdiffusion.inspection.dimension_display import IntrinsicDimensionDisplay
from skdiffusion.inspection.far_field import FarFieldReport, far_field_report
from skdiffusion.inspection.feature_emergence import FeatureEmergence, feature_emergence
from skdiffusion.inspection.reach_align_slide import ReachAlignSlide, reach_align_slide
from skdiffusion.inspection.score_comparison import (
    ScoreComparison,
    compare_scores,
    score_references,
)
from skdiffusion.inspection.score_comparison_display import ScoreComparisonDisplay
from skdiffusion.inspection.score_field_display import ScoreFieldDisplay
from skdiffusion.inspection.spectrum_display import SpectrumDisplay
from skdiffusion.inspection.stability import (
    StabilityDisplay,
    StabilityReport,
    StabilityTable,
    StabilityTableDisplay,
    diagnose_stability,
    stability_table,
)
from skdiffusion.inspection.trajectory_display import TrajectoryDisplay
from skdiffusion.inspection.trajectory_geometry import TrajectoryGeometry, trajectory_geometry

__all__ = [
    "ConservativityDisplay",
    "FarFieldReport",
    "FeatureEmergence",
    "IntrinsicDimensionDisplay",
    "ReachAlignSlide",
    "ReachAlignSlideDisplay",
    "ScoreComparison",
    "ScoreComparisonDisplay",
    "ScoreFieldDisplay",
    "SpectrumDisplay",
    "StabilityDisplay",
    "StabilityReport",
    "StabilityTable",
    "StabilityTableDisplay",
    "TrajectoryDisplay",
    "TrajectoryGeometry",
    "compare_scores",
    "diagnose_stability",
    "far_field_report",
    "feature_emergence",
    "reach_align_slide",
    "score_references",
    "stability_table",
    "trajectory_geometry",
]
