r"""Samples of a fitted score model: exact draws, or a sampler on the probability flow.

Codes :math:`z \sim N(0, I)` become points of the far field :math:`N(\mu, C + \sigma_{\max}^2 I)`,
which a sampler takes through falling noise levels,

.. math:: \frac{dx}{d\sigma} = \frac{x - D(x, \sigma)}{\sigma}, \qquad
          \sigma_{\max} > \sigma_1 > \dots > 0 .

Levels are those of the schedule asked for, or lie where the spectrum of the data puts them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skdiffusion.estimators._condition import conditional_rows
from skdiffusion.flow import isotropic_view
from skdiffusion.samplers import check_sampler, run_sampler, spectral_levels
from skdiffusion.schedules import check_schedule
from skdiffusion.utils.arrays import to_numpy
from skdiffusion.utils.output import in_container
from skdiffusion.utils.random import as_generator, generator_beside
from skdiffusion.utils.validation import check_callback, check_count

__all__ = ["Sampling"]

DEFAULT_SAMPLER = "adams"
DEFAULT_STEPS = 32


class Sampling:
    """What a score estimator needs to be sampled from.

    The host has the parameters ``schedule`` and ``sampler`` and, once fitted, ``model_``,
    ``far_field_``, ``scale_``, ``sigma_min_``, ``sigma_max_``.
    """

    def sample(
        self,
        n_samples: int = 1,
        *,
        y: Any = None,
        condition: Any = None,
        sampler: Any = None,
        n_steps: int | None = None,
        random_state: Any = None,
        return_trajectory: bool = False,
        callback: Any = None,
        verbose: bool | None = None,
    ):
        """Draw new rows.

        Parameters
        ----------
        n_samples : int
        y : array-like of shape (n_samples,), optional
            Labels, where the model is conditional.
        condition : mapping or LinearMeasurement, optional
            What is known of the rows: from columns, by name or position, to a value or a range
            ``(low, high)``, ``None`` for no bound; or linear functions that were measured. Exact
            for Gaussians, mixtures and kernels unless a sampler is asked for; others are guided.
        sampler : str or BaseSampler, optional
            How to get from noise to data: a short name (``skdiffusion.samplers.SAMPLERS``)
            or an instance, such as ``HeunSampler(teleport="auto")``. By default an exact draw
            where the model has one.
        n_steps : int, optional
            Number of noise levels of the sampler (default 32). Asking for it, or for a
            trajectory, asks for a sampler: the closed-form flow where there is one.
        random_state : None, int, Generator or RandomState
            ``None`` is fresh entropy at every call; a seed repeats exactly.
        return_trajectory : bool
            Whether to return the rows at every noise level too.
        callback : callable, optional
            Called as ``callback(step, level, x)`` after every step of a sampler.
        verbose : bool, optional
            Whether to show the progress of a sampler; by default as the estimator's own
            ``verbose``, if it has one.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features)
            A DataFrame under ``set_output``.
        trajectory : ndarray of shape (n_levels, n_samples, n_features)
            Only if asked for: from noise to data, at ``noise_levels(n_steps)`` and then zero;
            a teleporting sampler starts at the level of its hand-over.

        Raises
        ------
        ValueError
            If an argument is out of its range, or labels are given to an unconditional model.
        FloatingPointError
            If a step produced values that are not finite.

        Warns
        -----
        UserWarning
            If a sampler was interrupted: the rows that are finished are returned.
        """
        check_is_fitted(self)
        return self._sample(
            self._quick_model(),
            n_samples,
            y=y,
            condition=condition,
            sampler=sampler,
            n_steps=n_steps,
            random_state=random_state,
            return_trajectory=return_trajectory,
            callback=callback,
            verbose=verbose,
        )

    def _sample(
        self,
        model,
        n_samples,
        *,
        y=None,
        condition=None,
        sampler=None,
        n_steps=None,
        random_state=None,
        return_trajectory=False,
        callback=None,
        verbose=None,
    ):
        """Rows of a model that stands for the fitted one."""
        n_samples = check_count(n_samples, "n_samples")
        rng = as_generator(random_state)
        self._refuse_labels(y)
        check_callback(callback)
        verbose = bool(getattr(self, "verbose", False) if verbose is None else verbose)
        if condition is not None:
            if y is not None or return_trajectory:
                raise ValueError("a condition goes neither with labels y nor with a trajectory.")
            how = {"sampler": sampler, "n_steps": n_steps, "callback": callback, "verbose": verbose}
            return in_container(conditional_rows(self, model, n_samples, condition, rng, how), self)
        asks = any(a is not None for a in (sampler, self.sampler, n_steps)) or return_trajectory
        if model.has_sample and not asks:
            return in_container(model.sample(n_samples, random_state=rng), self)

        noise = generator_beside(rng)
        codes = rng.standard_normal((n_samples, self.n_features_in_))
        result = self._generate(
            codes,
            sampler,
            n_steps,
            model=model,
            y=y,
            random_state=noise,
            return_trajectory=return_trajectory,
            callback=callback,
            verbose=verbose,
        )
        if not return_trajectory:
            return in_container(result, self)
        return in_container(result[0], self), result[1]

    def _quick_model(self):
        """The fitted model, as precise as samples and averages over noise need it."""
        return self.model_

    def _where_drawn(self, codes):
        """Codes as an array of the library, and on the device, that samplers are to work on."""
        return codes

    def _generate(self, codes, sampler, n_steps, *, model=None, callback=None, **options):
        """Rows from standard normal codes of the far field, by a sampler."""
        model = self._quick_model() if model is None else model
        sampler = self._sampler(sampler)
        levels = self.noise_levels(n_steps, sampler)
        # samplers work where the noise is isotropic
        model, far_field, scale = isotropic_view(model, self.far_field_)

        def seen(step, level, x):
            callback(step, level, to_numpy(x) * scale)

        result = run_sampler(
            sampler,
            model,
            far_field.from_latent(self._where_drawn(codes), levels[0]),
            np.append(levels, 0.0),
            far_field=far_field,
            callback=None if callback is None else seen,
            **options,
        )
        if isinstance(result, tuple):
            return tuple(to_numpy(part) * scale for part in result)
        return to_numpy(result) * scale

    def _refuse_labels(self, y, n=None):
        """Labels that the model has no use for, or that are not one for each of ``n`` rows."""
        if y is not None and not self.model_.is_conditional:
            raise ValueError(f"{type(self).__name__} is unconditional: it takes no labels y.")
        if n is not None and np.ndim(y) and len(y) != n:
            raise ValueError(f"y must hold one label per row, {n}; got {len(y)}.")

    def _sampler(self, sampler=None):
        """The sampler asked for, or else what integrates the flow best."""
        sampler = self.sampler if sampler is None else sampler
        if sampler is None:
            sampler = "flow" if self.model_.has_flow else DEFAULT_SAMPLER
        return check_sampler(sampler)

    def noise_levels(self, n_steps: int | None = None, sampler: Any = None) -> np.ndarray:
        """Decreasing noise levels of a sampler, in the units of ``X``, without the final zero.

        Parameters
        ----------
        n_steps : int, optional
            How many; 32 by default.
        sampler : str or BaseSampler, optional
            Which sampler they are for; by default the one that :meth:`sample` takes. With
            ``schedule="auto"`` samplers whose steps are exact for a constant denoiser have levels
            where the law takes shape, others those of ``"edm"``.

        Returns
        -------
        ndarray of shape (n_steps,)
        """
        check_is_fitted(self)
        n_steps = DEFAULT_STEPS if n_steps is None else n_steps
        schedule = self._schedule()
        if schedule is None and self._sampler(sampler).exponential:
            spectrum = isotropic_view(self.model_, self.far_field_)[1].covariance
            return spectral_levels(spectrum, n_steps, self.sigma_min_, self.sigma_max_)
        return self.scale_ * (schedule or check_schedule("edm")).grid(
            n_steps,
            sigma_min=self.sigma_min_ / self.scale_,
            sigma_max=self.sigma_max_ / self.scale_,
        )

    def _schedule(self):
        """The schedule asked for; ``None`` where levels come from the data."""
        if isinstance(self.schedule, str) and self.schedule == "auto":
            return None
        return check_schedule(self.schedule, or_else="'auto' or a NoiseSchedule instance")
