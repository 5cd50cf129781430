"""Intervals keep their promise on new pictures, whatever the spread was; what does not fit is called a spread."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from restore.errors import InputError
from restore.uncertainty.calibration import (
    FACTORS,
    Calibration,
    Condition,
    Judged,
    calibrate,
    exact_coverage,
    fitted_power,
    half_width,
    judge,
    normal_factor,
    pictures_needed,
    smallest_factor,
    spread,
)

HERE = Condition("denoise", "white noise", 1.0, 0.1, 8, {"_target_": "x.Y", "steps": 50}, "sha")


def picture(rng, draws=8, wide=0.5, condition=HERE, size=12):
    """A picture whose draws have `wide` times the spread they should; its own difficulty is what its pixels share."""
    hard = 0.05 * math.exp(0.4 * rng.standard_normal())
    x = rng.standard_normal((draws, 1, size, size)) * hard * wide
    error = rng.standard_normal((1, size, size)) * hard * math.exp(0.3 * rng.standard_normal())
    return judge(condition, error - x.mean(0), x.std(0, ddof=1), 0.9)


@pytest.mark.parametrize("wide", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("n", [9, 30])
def test_the_promise_is_kept_on_average_over_calibrations_and_new_pictures(n, wide):
    """Within three standard errors of its two sides: at least the level, at most 2 / (n + 1) above it."""
    rng = np.random.default_rng(n)
    found = []
    for _ in range(100):
        entry = calibrate([picture(rng, wide=wide) for _ in range(n)], 0.9)
        found.append(picture(rng, wide=wide).covered(entry.factor, entry.power))
    mean, se = np.mean(found), np.std(found) / len(found) ** 0.5
    assert 0.9 - 3 * se <= mean <= 0.9 + 2 / (n + 1) + 3 * se


def test_without_the_correction_for_few_pictures_the_promise_is_broken():
    """Pictures that are missed or covered as a whole, where the coverage is known: of three and one more, the second
    largest score covers half and the largest three quarters."""
    scores = np.random.default_rng(0).exponential(size=(2000, 4))
    plain = ours = 0.0
    for *known, new in scores:
        curves = np.array([s > FACTORS for s in known], float)
        plain += new <= FACTORS[np.flatnonzero(curves.mean(0) <= 0.34)[0]]
        ours += new <= smallest_factor(curves, 0.66)
    assert plain / 2000 == pytest.approx(0.5, abs=0.04) and ours / 2000 == pytest.approx(0.75, abs=0.04)


def test_the_factor_is_the_smallest_that_will_do():
    misses = np.clip(1 - FACTORS / 4, 0, 1)  # none are missed from 4 times the spread on
    n = 19
    factor = smallest_factor(np.tile(misses, (n, 1)), 0.9)
    # n / (n + 1) * (1 - f / 4) + 1 / (n + 1) = 0.1
    assert factor == pytest.approx(4 * (1 - (0.1 * (n + 1) - 1) / n), rel=0.011)
    assert n / (n + 1) * (1 - factor / 4) + 1 / (n + 1) <= 0.1


def test_too_few_pictures_are_refused_with_the_number_needed():
    assert [pictures_needed(p) for p in (0.5, 0.8, 0.9, 0.95, 0.99)] == [1, 4, 9, 19, 99]
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="at least 9 pictures, there are 8"):
        calibrate([picture(rng) for _ in range(8)], 0.9)
    assert calibrate([picture(rng) for _ in range(9)], 0.9).covered is None  # none can be left out
    assert 0.85 < calibrate([picture(rng) for _ in range(30)], 0.9).covered < 1
    with pytest.raises(ValueError, match="even the factor 100"):
        smallest_factor(np.full((20, len(FACTORS)), 0.5), 0.9)


def test_a_picture_left_out_is_held_against_the_factor_of_the_others():
    found = [Judged(HERE, [0.1 * score], [0.1], 0.5) for score in (1, 2, 3)]
    assert calibrate(found, 0.5).covered == pytest.approx(2 / 3)  # the others reach as far as the largest of them


def uneven(rng, rough, power=0.6, size=48):
    """A picture where errors grow as a power of a spread that differs from place to place, rough pictures' the most."""
    std = HERE.sigma * np.exp(0.7 * rng.standard_normal((1, size // 6, size // 6)) - 2 + rough)
    std = std.repeat(6, 1).repeat(6, 2)
    error = HERE.sigma * (std / HERE.sigma) ** power * rng.standard_normal((1, size, size))
    return judge(HERE, error, std, 0.9)


def test_what_is_covered_depends_neither_on_the_spread_nor_on_how_rough_pictures_are():
    rng = np.random.default_rng(0)
    entry = calibrate([uneven(rng, 0.0) for _ in range(40)], 0.9)
    assert entry.power == pytest.approx(0.6, abs=0.05)
    half = half_width(np.array(uneven(rng, 0.0).spreads), HERE.sigma, entry.factor, entry.power)
    assert entry.width == pytest.approx(2 * half.mean(), rel=0.1)
    for rough in (-1.0, 1.0):
        new = [uneven(rng, rough) for _ in range(20)]
        assert np.mean([j.covered(entry.factor, entry.power) for j in new]) == pytest.approx(0.92, abs=0.03)
        in_proportion = smallest_factor(np.array([uneven(rng, 0.0).misses(1.0) for _ in range(40)]), 0.9)
        assert abs(np.mean([j.covered(in_proportion, 1.0) for j in new]) - 0.9) > 0.04


def test_where_errors_do_not_follow_the_noise_intervals_are_in_proportion_to_the_spread():
    rng = np.random.default_rng(0)
    found = [uneven(rng, 0.0) for _ in range(12)]
    holes = [replace(j, condition=replace(HERE, verb="inpaint")) for j in found]
    entry = calibrate(holes, 0.9)
    assert entry.power == 1.0 and entry.factor == smallest_factor(np.array([j.misses(1.0) for j in found]), 0.9)
    assert half_width(np.array(0.2), 0.05, entry.factor, 1.0) == half_width(np.array(0.2), 0.1, entry.factor, 1.0)


def test_intervals_are_the_same_in_any_units():
    rng = np.random.default_rng(0)
    std, n = 0.1 * rng.random((1, 24, 24)), rng.standard_normal((1, 24, 24))
    entries = [
        calibrate([judge(replace(HERE, sigma=s * HERE.sigma), s * n * std, s * std, 0.9)] * 9, 0.9) for s in (1, 2)
    ]
    assert entries[0].power == pytest.approx(entries[1].power, abs=0.01)
    assert entries[0].factor == pytest.approx(entries[1].factor, rel=0.02)


def test_where_the_spread_says_nothing_of_the_error_all_are_as_wide():
    rng = np.random.default_rng(0)
    std = 0.1 * np.exp(rng.standard_normal((1, 48, 48)))
    error = 0.1 * rng.standard_normal((1, 48, 48))
    assert fitted_power([judge(HERE, error, std, 0.9)]) == pytest.approx(0, abs=0.1)
    assert fitted_power([judge(HERE, error, np.full_like(std, 0.1), 0.9)]) == 1.0
    nothing = judge(HERE, 0 * error, std, 0.9)
    assert math.isfinite(fitted_power([nothing]))


def test_no_spread_is_never_zero_and_borders_are_as_the_middle():
    assert spread(np.zeros((1, 5, 7), np.float32)).min() == pytest.approx(0.5 / 255)
    assert spread(np.full((1, 5, 7), 0.3)) == pytest.approx(0.3)
    one = np.zeros((1, 7, 7))
    one[0, 3, 3] = 3.0
    assert spread(one)[0, 2, 2] == pytest.approx(1.0) and spread(one)[0, 1, 1] < 0.01


def test_raw_coverage_of_exact_draws_is_what_is_said_of_them():
    rng, found = np.random.default_rng(0), []
    for _ in range(40):
        x = 0.1 * rng.standard_normal((5, 1, 32, 32))
        error = 0.1 * rng.standard_normal((1, 32, 32)) - x[:4].mean(0)
        found.append(judge(HERE, error, x[:4].std(0, ddof=1), 0.9).raw)
    assert np.mean(found) == pytest.approx(exact_coverage(4, 0.9), abs=0.01)
    assert normal_factor(0.9) == pytest.approx(1.6449, abs=1e-4)
    assert exact_coverage(10_000, 0.9) == pytest.approx(0.9, abs=1e-3)


def test_a_factor_for_few_draws_covers_no_less_with_more_of_them():
    """What lets an entry for 8 draws serve 12."""
    rng, found = np.random.default_rng(0), {}
    hard = 0.1 * np.exp(rng.standard_normal((30, 1, 1, 3, 3))).repeat(8, -1).repeat(8, -2)
    x, error = hard * rng.standard_normal((30, 16, 1, 24, 24)), hard[:, 0] * rng.standard_normal((30, 1, 24, 24))
    for k in (2, 3, 4, 8, 16):
        found[k] = [judge(HERE, e - d[:k].mean(0), d[:k].std(0, ddof=1), 0.9) for d, e in zip(x, error, strict=True)]
    for few in (2, 3, 4, 8):
        entry = calibrate(found[few], 0.9)
        for more in (k for k in found if k > few):
            assert np.mean([j.covered(entry.factor, entry.power) for j in found[more]]) > 0.9


def fitted(**changes):
    rng = np.random.default_rng(0)
    condition = replace(HERE, **changes)
    return calibrate([picture(rng, condition.draws, condition=condition) for _ in range(12)], 0.9)


def test_an_entry_serves_its_own_conditions_and_near_ones():
    cal = Calibration(0.9, tuple(fitted(draws=k, sigma=s) for k in (2, 4, 8) for s in (0.05, 0.1)))
    entry = cal.find(replace(HERE, sigma=0.06))
    assert (entry.condition.draws, entry.condition.sigma) == (8, 0.05)
    assert [cal.find(replace(HERE, draws=k)).condition.draws for k in (2, 3, 5, 7, 9, 100)] == [2, 2, 4, 4, 8, 8]
    for changes, said in (
        ({"sigma": 0.17}, "near noise 0.17"),
        ({"sigma": 0.03}, "near noise 0.03"),
        ({"strength": 2.0}, "near this strength of white noise"),
        ({"kind": "holes"}, "nothing for holes"),
        ({"verb": "inpaint"}, "nothing for inpaint"),
        ({"prior": "other"}, "another prior"),
        ({"sampler": {**HERE.sampler, "steps": 20}}, "other settings of the sampler: steps=50"),
        ({"sampler": {"_target_": "x.Z", "steps": 50}}, "another sampler, Y"),
        ({"draws": 1}, "nothing for 1 draws"),
    ):
        assert said in cal.find(replace(HERE, **changes))


def test_a_file_holds_what_was_written_and_is_added_to(tmp_path):
    path = tmp_path / "cal.json"
    cal = Calibration(0.9, (fitted(), fitted(sigma=0.2)))
    cal.save(path)
    assert Calibration.load(path) == cal
    again = cal.updated([replace(fitted(), factor=7.0), fitted(verb="deblur")])
    assert [e.condition.verb for e in again.entries] == ["denoise", "denoise", "deblur"]
    assert again.find(HERE).factor == 7.0
    plain = json.loads(path.read_text())
    del plain["entries"][0]["power"]
    path.write_text(json.dumps(plain))
    assert Calibration.load(path).find(HERE).power == 1.0


@pytest.mark.parametrize(
    "content, said",
    [
        (None, "no such file"),
        ("", "cannot be read"),
        ("{", "cannot be read"),
        ("[]", "does not describe"),
        ("{}", "does not describe"),
        ('{"level": 0.9, "entries": []}', "0 entries"),
        ("level=90", "level 90"),
        ("factor=-1", "factor -1"),
        ("factor=Infinity", "factor inf"),
        ('factor="2"', "does not describe"),
        ("power=-1", "power -1"),
        ("power=NaN", "power nan"),
        ("surplus=1", "surplus"),
    ],
)
def test_a_bad_file_is_refused_in_words(tmp_path, content, said):
    path = tmp_path / "cal.json"
    if content is not None:
        Calibration(0.9, (fitted(),)).save(path)
        if content[:1].isalpha():
            (key, _, value), plain = content.partition("="), json.loads(path.read_text())
            (plain if key == "level" else plain["entries"][0])[key] = json.loads(value)
            content = json.dumps(plain)
        Path(path).write_text(content)
    with pytest.raises(InputError) as error:
        Calibration.load(path)
    assert said in str(error.value) and "restore calibrate" in str(error.value)
