r"""Patches of the photographs that ship with scikit-learn: real data of any dimension.

A grey patch of ``size x size`` pixels is a row of ``size**2`` numbers. Spectra of natural
images fall as a power law, :math:`\lambda_k \propto k^{-a}`, which is what makes features of
different scale emerge at different noise levels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.datasets import load_sample_images

from skdiffusion.utils.random import as_generator
from skdiffusion.utils.validation import check_count, check_flag

__all__ = ["load_image_patches"]

GREY = np.array([0.299, 0.587, 0.114])
"""Luminance of red, green and blue (ITU-R BT.601)."""


def load_image_patches(
    n_samples: int = 5000,
    *,
    size: int = 8,
    remove_mean: bool = False,
    random_state: Any = None,
) -> np.ndarray:
    """Random grey patches of two photographs, a flower and a temple.

    Parameters
    ----------
    n_samples : int
    size : int
        Patches have ``size x size`` pixels; at most 427, and two at least without their mean.
    remove_mean : bool
        Whether to remove each patch's mean brightness and the constant direction with it:
        rows then have ``size**2 - 1`` columns, coordinates in an orthonormal basis.
    random_state : None, int, Generator or RandomState
        Where the patches lie.

    Returns
    -------
    ndarray of shape (n_samples, size**2)
        Pixels from 0 (black) to 1 (white). ``size**2 - 1`` columns if ``remove_mean``.

    Raises
    ------
    ValueError
        If ``n_samples`` is not positive or no patch of this size fits.

    Examples
    --------
    >>> load_image_patches(10, size=8, random_state=0).shape
    (10, 64)
    """
    n_samples = check_count(n_samples, "n_samples")
    check_flag(remove_mean, "remove_mean")
    size = check_count(size, "size", 1 + remove_mean)  # one pixel is its own mean
    images = [image @ GREY / 255 for image in load_sample_images().images]
    height, width = images[0].shape
    if size > min(height, width):
        raise ValueError(f"size must be at most {min(height, width)}; got {size}.")
    rng = as_generator(random_state)
    which = rng.integers(len(images), size=n_samples)
    tops = rng.integers(height - size + 1, size=n_samples)
    lefts = rng.integers(width - size + 1, size=n_samples)
    patches = np.stack(
        [
            images[k][top : top + size, left : left + size].ravel()
            for k, top, left in zip(which, tops, lefts, strict=True)
        ]
    )
    if not remove_mean:
        return patches
    # a reflection that takes the constant direction to the first coordinate, which is dropped
    d = size**2
    axis = np.full(d, d**-0.5)
    axis[0] += 1.0
    reflected = patches - np.outer(patches @ axis, axis) * (2 / (axis @ axis))
    return reflected[:, 1:]
