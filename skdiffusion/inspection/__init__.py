"""Looking into data and models: reports, comparisons, pictures."""

from skdiffusion.inspection._reach_align_slide_display import ReachAlignSlideDisplay
from skdiffusion.inspection.conservativity import ConservativityDisplay
from skdiffusion.inspection.dimension_display import IntrinsicDimensionDisplay
from skdiffusion.inspection.far_field import FarFieldReport, far_field_report
from skdiffusion.inspection.reach_align_slide import ReachAlignSlide, reach_align_slide
from skdiffusion.inspection.stability import (
    StabilityDisplay,
    StabilityReport,
    StabilityTable,
    StabilityTableDisplay,
    diagnose_stability,
    stability_table,
)

__all__ = [
    "ConservativityDisplay",
    "FarFieldReport",
    "IntrinsicDimensionDisplay",
    "ReachAlignSlide",
    "ReachAlignSlideDisplay",
    "StabilityDisplay",
    "StabilityReport",
    "StabilityTable",
    "StabilityTableDisplay",
    "diagnose_stability",
    "far_field_report",
    "reach_align_slide",
    "stability_table",
]
