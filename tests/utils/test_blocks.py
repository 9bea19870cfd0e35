"""Blocks computed side by side are the blocks computed in turn."""

import threading

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from skdiffusion.models import MixtureModel
from skdiffusion.models import mixture as mixture_module
from skdiffusion.utils.blocks import blas_threads, map_blocks, one_blas_thread


@pytest.mark.parametrize("n_threads", [1, 2])
def test_results_come_in_order(n_threads):
    with threadpool_limits(n_threads, user_api="blas"):
        found = map_blocks(lambda rows: (rows.start, rows.stop), 10, 3)
    assert found == [(0, 3), (3, 6), (6, 9), (9, 12)]


def test_two_blocks_run_at_the_same_time_with_one_thread_each():
    meet = threading.Barrier(2, timeout=30)

    def block(rows):
        meet.wait()  # breaks if the blocks run in turn
        return blas_threads()

    with threadpool_limits(2, user_api="blas"):
        if blas_threads() < 2:
            pytest.skip("matrix products have one thread on this machine")
        assert map_blocks(block, 4, 2) == [1, 1]
        assert blas_threads() == 2  # as it was


def test_an_error_in_a_block_is_the_callers_and_limits_are_lifted():
    def fails(rows):
        raise ValueError("no")

    with threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        with pytest.raises(ValueError, match="no"):
            map_blocks(fails, 4, 2)
        assert blas_threads() == before
    with one_blas_thread():
        assert blas_threads() == 1


def test_a_mixture_is_the_same_by_any_number_of_threads_and_blocks(rng, monkeypatch):
    factors = rng.standard_normal((3, 8, 8))
    model = MixtureModel([0.2, 0.3, 0.5], rng.standard_normal((3, 8)), factors @ factors.mT)
    x = 2 * rng.standard_normal((900, 8))
    levels = rng.uniform(0.1, 2.0, 900)
    expected = model.denoise(x, 0.7), model.score(x, levels), model.log_prob(x, 0.7)
    monkeypatch.setattr(mixture_module, "BLOCK", 2**12)
    for n_threads in (1, 2):
        with threadpool_limits(n_threads, user_api="blas"):
            found = model.denoise(x, 0.7), model.score(x, levels), model.log_prob(x, 0.7)
        for one, other in zip(found, expected, strict=True):
            # sums of 24 products in another order
            np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-13)
