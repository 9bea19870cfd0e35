"""Helpers that know nothing of diffusion: arrays, randomness, validation, outputs."""
