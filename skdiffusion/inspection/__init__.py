"""Looking into data and models: reports, comparisons, pictures."""

from skdiffusion.inspection.conservativity import ConservativityDisplay
from skdiffusion.inspection.far_field import FarFieldReport, far_field_report

__all__ = ["ConservativityDisplay", "FarFieldReport", "far_field_report"]
