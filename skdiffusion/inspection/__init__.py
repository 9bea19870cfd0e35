"""Looking into data and models: reports, comparisons, pictures."""

from skdiffusion.inspection.dimension_display import IntrinsicDimensionDisplay
from skdiffusion.inspection.far_field import FarFieldReport, far_field_report

__all__ = ["FarFieldReport", "IntrinsicDimensionDisplay", "far_field_report"]
