r"""NeuralScore: a network that learns to denoise, as a scikit-learn estimator.

Trained on noised rows :math:`x = x_0 + \sigma\varepsilon` to give back :math:`x_0`, a network
learns the conditional mean, hence the score of the law at every noise level
(:mod:`skdiffusion.models.neural`). By default it learns only what a mixture of normal laws, fitted
to the rows before, does not explain (``parameterization="mixture"``): untrained, the model is that
mixture. What a network learns by itself is a question for ``"gaussian"`` or ``"edm"``.

Everything has a default from the data: standardisation, noise range, training levels, size of the
network and number of steps. A tenth of the rows, at most 300, are kept to validate on: the
weights that denoise them best stay, and of what these add to a mixture as much as they are worth.
"""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skdiffusion.estimators._own_clock import OwnClock, check_level_estimator
from skdiffusion.estimators.base import BaseScoreEstimator
from skdiffusion.models import LabelCode, LabelGuidedModel
from skdiffusion.parameterizations import check_parameterization
from skdiffusion.utils.rows import check_rows, check_weights
from skdiffusion.utils.validation import check_count, check_flag, check_number, lookup
from skdiffusion.utils.whole import whole_or_not_at_all

__all__ = ["NeuralScore"]

SCALINGS = ("auto", "global", "columns")
FLAGS = ("noise_conditioning", "early_stopping", "curriculum", "warm_start", "amp", "compile")
OF_THE_MODEL = (
    "module",
    "net",
    "optimizer",
    "input_shape",
    "parameterization",
    "noise_conditioning",
    "conservative",
)
"""What, with the arguments of network and optimizer, stays as it was when a model was begun."""
PREFIXES = ("module__", "optimizer__")


class NeuralScore(OwnClock, BaseScoreEstimator):
    r"""Score model learned by a neural network.

    Parameters
    ----------
    module : {"mlp", "unet", "dit"} or class
        Network, or a class of torch modules with the constructor arguments ``n_features`` and
        ``n_conditions`` and ``forward(x, noise, condition=None)``. Its other arguments are given
        as ``module__name``, such as ``module__width=256``. The perceptron's width follows from the
        number of columns; its ``module__dropout`` is 0.4 on fewer than 1000 rows, if those are
        fewer than 50 per column.
    parameterization : str or Parameterization
        What the network is asked for: ``"gaussian"`` (what the linear denoiser misses),
        ``"mixture"`` (what a Gaussian mixture misses: the better density of most tables),
        ``"edm"``, ``"noise"``, ``"data"``, ``"velocity"``, ``"v"`` or ``"score"``. ``"auto"`` is
        ``"mixture"`` for a perceptron that is told the noise level and need not be conservative,
        fitted to 100 rows or more of 128 columns at most, without labels or with at most 20
        classes of 20 rows or more; ``"edm"`` for networks of images, and else ``"gaussian"``.
    schedule : "auto", str or NoiseSchedule
        Which noise levels training visits, and the path on which predictions such as the velocity
        are defined; default of samplers and of ``at_time``. ``"auto"`` visits levels where there
        is something to learn, on the path of ``"edm"``.
    noise_conditioning : bool
        Whether the network is told the noise level. Samplers of one that is not go by the level
        that their points seem to have (``clock="estimated"``), unless theirs is another clock.
    level_estimator : NoiseLevelEstimator, optional
        What reads that level; by default one of boosted trees. Only for networks that are not
        told it.
    conservative : bool or float
        True: the network is the gradient of an energy. A number: weight of a penalty on the
        asymmetry of the denoiser's Jacobian.
    input_shape : tuple of int, optional
        Shape ``(channels, height, width)`` of a row, for networks of images.
    scaling : {"auto", "global", "columns"}
        Standardisation inside: one scale, or one per column, in which case noise is in proportion
        to it. ``"auto"`` takes one scale where the ranges of the columns are within a factor of 30,
        and for images.
    max_epochs : "auto" or int
        Passes over the rows; ``"auto"`` from the number of rows and columns.
    batch_size : "auto" or int
        Rows per step, 256 by default.
    lr : float
        Highest learning rate; it rises for the first steps and then falls as a cosine.
    optimizer : {"adamw", "adam", "sgd"} or class
        Its arguments are given as ``optimizer__name``.
    ema_decay : float
        Decay per step of the average of the weights, which remembers a tenth of the steps taken
        at most; 0 takes the last ones.
    early_stopping : bool
        Whether to hold out rows, keep the weights that denoise them best, and stop when
        ``n_iter_no_change`` rounds brought nothing better.
    validation_fraction : float
        Share of the rows that are held out, at most 300 of them.
    n_iter_no_change : int
        Rounds without a better validation bound before training stops.
    label_dropout : float
        Share of rows that are trained without their label, in conditional models.
    curriculum : bool
        Whether training begins with the high, easy noise levels and adds the others over the first
        half of the steps.
    warm_start : bool
        Whether ``fit`` goes on from the weights of the last fit.
    checkpoint : str or path, optional
        File to which the state of training is written after every round. A ``fit`` that finds one
        goes on from there, to the same result; it is removed when training ends.
    net : skorch.NeuralNet, optional
        A template whose module, optimizer, ``lr`` and callbacks replace those above; the number
        of steps and the rows of each are ``max_epochs`` and ``batch_size`` of this estimator.
    callbacks : list of skorch callbacks, optional
        They see a round of training as an epoch: one or more passes over the rows, of which
        ``train_loss``, ``valid_bound`` and ``valid_bound_best`` are known. The learning rate is
        set at every step, and not theirs to set.
    device : str
        Torch device of training and of ``sample``; ``"auto"`` is the GPU where there is one. A
        model that was trained on a GPU answers without one too.
    amp : bool
        Whether to train in bfloat16 where that is safe.
    compile : bool
        Whether to compile the network for training with ``torch.compile``.
    likelihood : {"denoising", "ode"}
        What ``score`` is: the denoising bound, or the mean log-density along the flow.
    sampler : str, BaseSampler or None
        Default of ``sample``.
    sigma_min, sigma_max : float, optional
        Range of noise levels in the units of ``X``; by default from the data.
    random_state : None, int, Generator or RandomState
        Of the initial weights and of training. The same seed gives the same model on a CPU.
    verbose : bool
        Whether to show progress.
    **kwargs
        ``module__name`` and ``optimizer__name``.

    Attributes
    ----------
    model_ : AffineModel
        The fitted score model, around a :class:`~skdiffusion.models.NeuralModel`.
    module_ : torch.nn.Module
        The trained network.
    history_ : list of dict
        One entry per round: ``step``, ``epoch``, ``train_loss``, ``valid_bound``, ``dur``.
    n_steps_ : int
        Steps that were taken.
    validation_bound_ : float
        Denoising bound of the held-out rows while training, in nats per row; NaN without early
        stopping.
    gain_ : float
        Share that is kept of what the network adds to a mixture, by the held-out rows; else 1.
    level_estimator_ : NoiseLevelEstimator
        Only where the network is not told the level; of rows in units of ``model_.noise_scale``.
    classes_ : ndarray
        Labels of a class-conditional model.
    scale_ : float
        Noise level at which there is as much noise as data: root mean square of the columns'
        standard deviations, each over its ``model_.noise_scale``.
    sigma_min_, sigma_max_ : float
        Range of noise levels.
    far_field_ : GaussianModel
        The Gaussian with the same moments.

    Notes
    -----
    ``X`` may be a memory-mapped array or a map-style torch ``Dataset`` of rows: it is then read
    batch by batch; of copies of a row some may then be trained on and others held out. Under
    ``torchrun``, with an initialised process group, each process takes its share of every batch
    and all end with the same weights.

    References
    ----------
    T. Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models",
    NeurIPS 2022. B. Wang and J. J. Vastola, "The Unreasonable Effectiveness of Gaussian Score
    Approximation for Diffusion Models and its Applications", TMLR 2024. J. Ho and T. Salimans,
    "Classifier-Free Diffusion Guidance", 2022.

    Examples
    --------
    >>> from sklearn.datasets import make_moons
    >>> from skdiffusion import NeuralScore
    >>> X, _ = make_moons(500, noise=0.05, random_state=0)
    >>> est = NeuralScore(max_epochs=20, module__width=32, random_state=0).fit(X)
    >>> est.sample(3, random_state=0).shape
    (3, 2)
    """

    def __init__(
        self,
        module="mlp",
        *,
        parameterization="auto",
        schedule="auto",
        noise_conditioning=True,
        level_estimator=None,
        conservative=False,
        input_shape=None,
        scaling="auto",
        max_epochs="auto",
        batch_size="auto",
        lr=2e-3,
        optimizer="adamw",
        ema_decay=0.999,
        early_stopping=True,
        validation_fraction=0.1,
        n_iter_no_change=15,
        label_dropout=0.1,
        curriculum=False,
        warm_start=False,
        checkpoint=None,
        net=None,
        callbacks=None,
        device="auto",
        amp=False,
        compile=False,
        likelihood="denoising",
        sampler=None,
        sigma_min=None,
        sigma_max=None,
        random_state=None,
        verbose=False,
        **kwargs,
    ):
        self.module = module
        self.parameterization = parameterization
        self.schedule = schedule
        self.noise_conditioning = noise_conditioning
        self.level_estimator = level_estimator
        self.conservative = conservative
        self.input_shape = input_shape
        self.scaling = scaling
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.lr = lr
        self.optimizer = optimizer
        self.ema_decay = ema_decay
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.label_dropout = label_dropout
        self.curriculum = curriculum
        self.warm_start = warm_start
        self.checkpoint = checkpoint
        self.net = net
        self.callbacks = callbacks
        self.device = device
        self.amp = amp
        self.compile = compile
        self.likelihood = likelihood
        self.sampler = sampler
        self.sigma_min = sigma_min
        self.sigma_max = sigma_max
        self.random_state = random_state
        self.verbose = verbose
        for name in kwargs:
            if not name.startswith(PREFIXES):
                raise TypeError(f"NeuralScore got an unexpected keyword argument {name!r}.")
        self._nested = kwargs

    # a network is further from the law than this
    _flow_tolerances = {"code": 1e-6, "density": 2e-5}

    # ------------------------------------------------------------------ parameters

    # scikit-learn and other tools read which parameters there are from the signature
    __init__.__signature__ = inspect.signature(__init__).replace(
        parameters=[
            p
            for p in inspect.signature(__init__).parameters.values()
            if p.kind is not inspect.Parameter.VAR_KEYWORD
        ]
    )

    def get_params(self, deep=True):
        """Parameters, ``module__name`` and ``optimizer__name`` included."""
        return {**super().get_params(deep=deep), **self._nested}

    def set_params(self, **params):
        """Set parameters; any ``module__name`` and ``optimizer__name`` is one."""
        nested = {k: params.pop(k) for k in list(params) if k.startswith(PREFIXES)}
        super().set_params(**params)
        self._nested = {**self._nested, **nested}
        return self

    def _check_parameters(self):
        super()._check_parameters()
        from skdiffusion.networks import check_network

        if self.net is None:
            check_network(self.module)
        if self.parameterization != "auto":
            check_parameterization(self.parameterization, "'auto'")
        lookup(self.scaling, dict.fromkeys(SCALINGS), "scaling")
        for name in FLAGS:
            check_flag(getattr(self, name), name)
        if not isinstance(self.conservative, (bool, np.bool_)):
            check_number(self.conservative, "conservative", least=0)
        for name in ("max_epochs", "batch_size"):
            if not isinstance(getattr(self, name), str) or getattr(self, name) != "auto":
                check_count(getattr(self, name), name)
        check_number(self.lr, "lr", above=0)
        check_number(self.ema_decay, "ema_decay", least=0, most=1)
        check_number(self.validation_fraction, "validation_fraction", above=0, most=0.5)
        check_count(self.n_iter_no_change, "n_iter_no_change")
        if check_number(self.label_dropout, "label_dropout", least=0, most=1) == 1:
            raise ValueError("label_dropout must be below 1, where no row would have its label.")
        check_level_estimator(self.level_estimator)
        if self.input_shape is not None:
            if not isinstance(self.input_shape, (tuple, list)) or len(self.input_shape) != 3:
                raise ValueError(
                    f"input_shape must be (channels, height, width); got {self.input_shape!r}."
                )
            for size in self.input_shape:
                check_count(size, "every entry of input_shape")

    # ------------------------------------------------------------------ fitting

    @whole_or_not_at_all
    def fit(self, X, y=None, sample_weight=None):
        """Train the network.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), memmap or torch Dataset
            At least two rows. Rows of a Dataset may come flat or in any shape.
        y : array-like of shape (n_samples,), optional
            Labels, classes or numbers: the model is then conditional. Whole numbers are classes,
            of whatever type.
        sample_weight : array-like of shape (n_samples,), optional
            How often a row is drawn: a weight of 2 equals a repeated row.

        Returns
        -------
        NeuralScore

        Raises
        ------
        ValueError
            If ``X`` is not finite or has no variance, or a parameter is out of its range.
        FloatingPointError
            If the loss is not finite.

        Warns
        -----
        UserWarning
            If training was interrupted: the model is what was learned up to then. If a few far
            rows decide the standard deviation of a column, and with it the noise levels.
        """
        from skdiffusion.estimators._neural_fit import fit_network

        self._check_parameters()
        X, weights = self._training_rows(X, sample_weight)
        labels = None if y is None else LabelCode(y, weights)
        codes = None if y is None else _codes(labels, y, len(X), weights)
        fit_network(self, X, codes, labels, weights)
        return self

    @whole_or_not_at_all
    def partial_fit(self, X, y=None, sample_weight=None):
        """Go on training with one pass over a batch of rows, at a constant learning rate.

        The first batch, or a fit before, decides standardisation, noise range, labels, network,
        optimizer and what is asked of the network. No rows are held out: of what the network adds
        to a mixture all is kept from then on, beginning with what was kept before (``gain_``).

        Parameters
        ----------
        X, y, sample_weight
            As in :meth:`fit`.

        Returns
        -------
        NeuralScore

        Raises
        ------
        ValueError
            As in :meth:`fit`; if network, optimizer or parameterization are no longer those that
            the model was begun with.
        """
        from skdiffusion.estimators._neural_fit import fit_network

        self._check_parameters()
        first = not hasattr(self, "model_")
        if not first:
            self._refuse_another_model()
        X, weights = self._training_rows(X, sample_weight, reset=first)
        labels = self._labels()
        if first and y is not None:
            labels = LabelCode(y, weights)
        codes = None if labels is None else _codes(labels, y, len(X), weights)
        if labels is None and y is not None and not first:
            raise ValueError("the first batch had no labels y, so the model is unconditional.")
        fit_network(self, X, codes, labels, weights, partial=True)
        return self

    def _training_rows(self, X, sample_weight, reset=True):
        from skdiffusion.estimators._training_rows import is_dataset, read_rows, repeated_rows

        if is_dataset(X):
            if len(X) < 2:
                raise ValueError(f"a Dataset of at least 2 rows is needed; got {len(X)}.")
            width = read_rows(X, np.arange(1)).shape[1]
            if not reset and width != self.n_features_in_:
                raise ValueError(
                    f"rows have {width} columns, but NeuralScore is expecting "
                    f"{self.n_features_in_}."
                )
            self.n_features_in_ = width
            if reset:  # its columns have no names
                vars(self).pop("feature_names_in_", None)
            checked = X
        else:
            checked = check_rows(self, X, reset=reset, ensure_min_samples=2)
            if isinstance(X, np.memmap):
                checked = X if X.dtype in (np.float32, np.float64) else checked
        if sample_weight is None:
            return checked, None
        return checked, repeated_rows(check_weights(sample_weight, len(checked)))

    def _of_the_model(self):
        """The parameters that a model keeps for as long as it is trained."""
        return {name: getattr(self, name) for name in OF_THE_MODEL} | self._nested

    def _refuse_another_model(self):
        now = self._of_the_model()
        then = getattr(self, "_begun_with", now)
        for name in now | then:
            if repr(now.get(name)) != repr(then.get(name)):
                raise ValueError(
                    f"partial_fit goes on with the model that was begun with {name}="
                    f"{then.get(name)!r}; got {now.get(name)!r}: fit begins another."
                )

    def _labels(self):
        return self._network_model().labels if hasattr(self, "model_") else None

    def _network_model(self):
        """The innermost model, around the network itself."""
        model = self.model_
        while hasattr(model, "model"):
            model = model.model
        return model

    @property
    def module_(self):
        """The trained network."""
        check_is_fitted(self)
        return self._network_model().module

    @property
    def gain_(self):
        """Share that is kept of what the network adds to a mixture."""
        check_is_fitted(self)
        return self._network_model().preconditioner.gain

    @property
    def classes_(self):
        """Labels of a class-conditional model."""
        labels = self._labels()
        if labels is None or labels.classes is None:
            raise AttributeError("classes_ exist after a fit with class labels y.")
        return labels.classes

    def __getstate__(self):
        state = super().__getstate__()
        # optimizer, callbacks and buffers of training: a copy goes on from the averaged weights
        return {k: v for k, v in state.items() if k != "net_"}

    def save(self, path):
        """Write the fitted model to a folder: ``config.json`` to read, weights as safetensors.

        Parameters
        ----------
        path : str or path
            A folder, made if it is not there.

        Raises
        ------
        ValueError
            If the estimator holds what a text cannot (callbacks, a ``net`` template, classes of
            one's own other than the network, dates as labels).
        """
        from skdiffusion.estimators._neural_files import save

        check_is_fitted(self)
        save(self, path)

    @classmethod
    def load(cls, path, *, module=None):
        """A fitted estimator from the folder that :meth:`save` wrote; no code in it is run.

        Parameters
        ----------
        path : str or path
        module : class, optional
            The network, where it is not one of this package's.

        Returns
        -------
        NeuralScore
        """
        from skdiffusion.estimators._neural_files import load

        return load(cls, path, module)

    # ------------------------------------------------------------------ samples

    def sample(
        self,
        n_samples: int = 1,
        *,
        y: Any = None,
        guidance_scale: float = 1.0,
        **options,
    ):
        """Draw new rows, of given labels where the model is conditional.

        Parameters
        ----------
        n_samples : int
        y : label or array-like of shape (n_samples,), optional
            One label for all rows or one per row; without it rows of any label are drawn.
        guidance_scale : float
            How much more than the law itself the labels count (Ho & Salimans 2022): at 1 rows are
            drawn from :math:`p(x|y)`, above it they are more typical of their label.
        **options
            ``condition``, ``sampler``, ``n_steps``, ``random_state``, ``return_trajectory``,
            ``callback`` and ``verbose`` as in every score estimator.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features)
            A DataFrame under ``set_output``.
        trajectory : ndarray of shape (n_levels, n_samples, n_features)
            Only if asked for.
        """
        check_is_fitted(self)
        scale = check_number(guidance_scale, "guidance_scale", least=0)
        if y is not None and np.ndim(y) == 0:
            y = np.full(check_count(n_samples, "n_samples"), y)
        model = self._quick_model()
        if scale != 1.0:
            self._refuse_labels(y)
            if y is None:
                raise ValueError(
                    "guidance_scale is how much labels count: it goes with labels y of a "
                    "conditional model."
                )
            model = LabelGuidedModel(model, scale)
        return self._sample(model, n_samples, y=y, **options)

    def _quick_model(self):
        """The network in single precision; points between its calls keep their digits.

        Neither samples nor averages over noise can tell it from double precision, in which
        convolutions take seven times as long on a processor.
        """
        from torch import float32

        return self._survey.in_units_of_rows(self._network_model().in_precision(float32))

    def _where_drawn(self, codes):
        """On a GPU the points stay there from step to step."""
        from torch import as_tensor

        from skdiffusion.networks.device import home

        device = home(self.device)
        return as_tensor(codes, device=device) if device.type == "cuda" else codes


def _codes(labels, y, n, weights):
    """Codes of the labels of rows, which those of no weight need not have."""
    return labels.encode(y, n, None if weights is None else weights > 0)
