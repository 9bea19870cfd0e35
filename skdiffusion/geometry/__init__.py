"""Geometry of data by their score: dimension."""
