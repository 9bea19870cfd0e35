"""Looking into data and models: reports, comparisons, pictures."""

from skdiffusion.inspection.far_field import FarFieldReport, far_field_report

__all__ = ["FarFieldReport", "far_field_report"]
