"""Diagnostics pass draws of exact posteriors and catch planted faults; chains are worth what theory says."""

import pytest
import torch
from known_posteriors import NOISE, operator, prior

from operators.noise import Gaussian
from operators.random import Draws
from restore.problem import Problem
from restore.uncertainty.diagnostics import effective_sample_size, nearer, rank_statistics, ranks, tarp

SIZE, K, N = 6, 19, 160


@pytest.fixture(scope="module")
def exact():
    """Truths `(N, 1, s, s)` from the prior, exact draws `(N, K, 1, s, s)` given data of each, reference points."""
    D, A, noise = prior("mixture", SIZE), operator("mask", SIZE), Gaussian(NOISE)
    truths = torch.stack([D.sample(Draws(1, file=i))[0] for i in range(N)])
    draws = []
    for i, x in enumerate(truths):
        P = Problem(noise.sample(A(x[None]), Draws(2, file=i)), A, noise)
        draws.append(D.posterior(P).sample(Draws(3, range(K), file=i)))
    return truths, torch.stack(draws), Draws(4, range(N)).normal((1, SIZE, SIZE), truths)


FAULTS = {
    "half the spread": lambda x, m: m + 0.5 * (x - m),
    "twice the spread": lambda x, m: m + 2 * (x - m),
    "a shift": lambda x, m: x + 0.08,
    "the mean alone": lambda x, m: m.expand_as(x),
}


def found(truths, draws, references):
    # One pixel of each problem: its ranks are independent.
    R = rank_statistics(torch.stack([ranks(t, x)[0, 0, 0] for t, x in zip(truths, draws, strict=True)]), draws.shape[1])
    counts = [nearer(t, x, r) for t, x, r in zip(truths, draws, references, strict=True)]
    return R, tarp(torch.tensor(counts), draws.shape[1])


def test_ranks_and_distances_count_what_they_say():
    draws = torch.tensor([[1.0, 1.0], [-1.0, 2.0], [2.0, 9.0]])
    assert ranks(torch.tensor([0.0, 5.0]), draws).tolist() == [1, 2]
    assert nearer(torch.tensor([3.0, 0.0]), draws, torch.zeros(2)) == 2


def test_exact_draws_pass(exact):
    R, T = found(*exact)
    assert R.p > 0.01 and R.counts.sum() == N and len(R.counts) == K + 1
    assert T.deviation < T.chance == pytest.approx(1.36 / N**0.5)
    assert len(T.level) == len(T.coverage) == K and T.level[-1] == pytest.approx(K / (K + 1))


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_are_caught(exact, fault):
    truths, draws, references = exact
    wrong = FAULTS[fault](draws, draws.mean(1, keepdim=True))
    R, T = found(truths, wrong, references)
    assert R.p < 1e-3
    if fault != "a shift":  # which random directions see but a little
        assert T.deviation > T.chance
    ends, middle = R.counts[[0, 1, -2, -1]].sum(), R.counts[8:12].sum()
    if fault != "a shift":
        assert (ends > middle) == (fault != "twice the spread")
        assert (T.coverage[-2] < T.level[-2]) == (fault != "twice the spread")


def test_draws_from_the_prior_are_what_these_tests_cannot_see(exact):
    truths, _, references = exact
    D = prior("mixture", SIZE)
    R, T = found(truths, torch.stack([D.sample(Draws(5, range(K), file=i)) for i in range(N)]), references)
    assert R.p > 0.01 and T.deviation < 1.5 * T.chance


def test_the_p_value_is_uniform_for_uniform_ranks():
    g = torch.Generator().manual_seed(0)
    p = torch.tensor([rank_statistics(torch.randint(0, 9, (500,), generator=g), 8).p for _ in range(400)])
    assert abs((p < 0.1).float().mean() - 0.1) < 0.05 and abs(p.mean() - 0.5) < 0.05


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"wants draws \(K, ...\), got \(3, 4\)"):
        ranks(torch.zeros(5), torch.zeros(3, 4))
    with pytest.raises(ValueError, match="from 0 to 4; got"):
        rank_statistics(torch.tensor([0, 5]), 4)
    with pytest.raises(ValueError, match="none"):
        tarp(torch.tensor([]), 4)
    with pytest.raises(ValueError, match="at least 4 states"):
        effective_sample_size(torch.zeros(3, 2))


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.9])
def test_an_autoregressive_chain_is_worth_what_theory_says(phi):
    """AR(1): the integrated autocorrelation time is (1 + phi) / (1 - phi)."""
    T = 20_000
    noise = torch.randn(T, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    chain = torch.zeros_like(noise)
    for t in range(1, T):
        chain[t] = phi * chain[t - 1] + noise[t]
    ess = effective_sample_size(chain)
    assert ess.shape == (5,)
    assert ess.mean() == pytest.approx(T * (1 - phi) / (1 + phi), rel=0.1)


def test_chains_that_stand_still_drift_or_alternate():
    t = torch.arange(1000.0)
    still, drift, back_and_forth = effective_sample_size(torch.stack([0 * t + 3, t, (-1) ** t], 1))
    assert still == 1 and drift < 10 and back_and_forth == 1000
