from __future__ import annotations

import numpy as np
import pytest

from bon.kl import kl_estimates


def test_estimators_of_verl() -> None:
    """logp −1, logref −1.5 → .5, .125, .10653."""
    k1, k2, k3 = kl_estimates(np.array([-1.0 - -1.5]))
    assert [*k1, *k2, *k3] == pytest.approx([0.5, 0.125, 0.10653], abs=1e-5)


def test_k3_is_never_negative_and_its_mean_is_the_divergence() -> None:
    p, q = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.3, 0.5])
    k1, _, k3 = kl_estimates(np.log(p / q))
    divergence = float((p * np.log(p / q)).sum())
    assert (p * k1).sum() == pytest.approx(divergence)
    assert (p * k3).sum() == pytest.approx(divergence)
    assert (k3 >= 0).all()


def test_a_ratio_that_overflows_is_infinite_without_a_warning() -> None:
    assert kl_estimates(np.array([-1e4])).k3.tolist() == [np.inf]
