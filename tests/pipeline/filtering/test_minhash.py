"""Signatures, buckets, clusters and the diverse choice, against datasketch and plain loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from bon.pipeline.filtering.minhash import (
    MAX_PIVOTS,
    Hasher,
    band_buckets,
    clusters,
    diverse,
    jaccard,
)


def texts(count: int, seed: int = 0) -> list[str]:
    """Texts of which many share a part with another."""
    rng = np.random.default_rng(seed)
    vocabulary = [f"w{i}" for i in range(300)]
    made: list[str] = []
    for number in range(count):
        words = list(rng.choice(vocabulary, 40))
        if number % 2:
            changes = rng.integers(0, 12)
            words = made[-1].split()
            for place in rng.integers(0, 40, changes):
                words[place] = str(rng.choice(vocabulary))
        made.append(" ".join(words))
    return made


def signed(made: list[str], ngram: int = 2, num_perm: int = 64) -> np.ndarray:
    hasher = Hasher(ngram, num_perm, 1, "near_dedup")
    return np.concatenate(list(hasher.signatures([pa.array(made)])))


def minhashes(signatures: np.ndarray) -> list[Any]:
    from datasketch import MinHash

    made = [MinHash(num_perm=signatures.shape[1]) for _ in signatures]
    for minhash, row in zip(made, signatures, strict=True):
        minhash.hashvalues = row
    return made


def test_similarity_estimates_that_of_the_ngram_sets():
    made = texts(60)
    signatures = signed(made, num_perm=256)
    for one in range(0, 60, 2):
        grams = [set(zip(t.split(), t.split()[1:], strict=False)) for t in made[one : one + 2]]
        exact = len(grams[0] & grams[1]) / len(grams[0] | grams[1])
        (estimate,) = jaccard(signatures[one], signatures[one + 1 : one + 2])
        assert abs(estimate - exact) < 4 * np.sqrt(0.25 / 256)


def test_several_columns_are_told_apart():
    hasher = Hasher(1, 256, 1, "near_dedup")
    chosen, rejected = pa.array(["a b c", "d e f", "a b c"]), pa.array(["d e f", "a b c", "d e f"])
    (pair,) = hasher.signatures([chosen, rejected])
    assert jaccard(pair[0], pair[1:]).tolist() == [0, 1]  # the opposite label, the same pair
    # 3 n-grams of 6 + 6 - 3 are shared
    (half,) = hasher.signatures([pa.array(["a b c", "a b c"]), pa.array(["d e f", "g h i"])])
    (similarity,) = jaccard(half[0], half[1:])
    assert abs(similarity - 3 / 9) < 4 * np.sqrt(0.25 / 256)


@pytest.mark.parametrize(
    ("one", "other"),
    [("The answer is -5.", "The answer is 5."), ("1.5", "15"), ("x=5", "x-5"), ("👍", "👎"),
     ("<=", ">="), ("。", "！"), ("", "。")],
)  # fmt: skip
def test_texts_that_differ_in_a_symbol_are_no_copies(one, other):
    signatures = signed([one, other, one])
    assert clusters(signatures, 1.0, 2, 32).tolist() == [0, 1, 0]


def test_buckets_are_those_of_the_library():
    from datasketch import MinHashLSH

    signatures = signed(texts(80))
    hasher = Hasher(2, 64, 1, "near_dedup")
    bands, rows = hasher.bands(0.5, None, None)
    lsh = MinHashLSH(threshold=0.5, num_perm=64, params=(bands, rows))
    for number, minhash in enumerate(minhashes(signatures)):
        lsh.insert(number, minhash)
    expected = {
        (one, other)
        for one, minhash in enumerate(minhashes(signatures))
        for other in lsh.query(minhash)
        if one < other
    }
    found = set()
    for members, starts in band_buckets(signatures, bands, rows):
        for bucket in np.split(members, starts[1:]):
            ordered = sorted(bucket.tolist())
            found |= {(a, b) for i, a in enumerate(ordered) for b in ordered[i + 1 :]}
    assert len(expected) > 10
    assert found == expected


@pytest.mark.parametrize("threshold", [0.3, 0.6, 1.0])
def test_clusters_are_linked_rows(threshold):
    signatures = signed(texts(80))
    bands, rows = 32, 2
    expected = list(range(80))
    pairs = set()
    for members, starts in band_buckets(signatures, bands, rows):
        for bucket in np.split(members, starts[1:]):
            pairs |= {(a, b) for a in bucket.tolist() for b in bucket.tolist() if a < b}
    for one, other in sorted(pairs):
        if (signatures[one] == signatures[other]).mean() >= threshold:
            low, high = sorted((expected[one], expected[other]))
            expected = [low if root == high else root for root in expected]
    assert clusters(signatures, threshold, bands, rows).tolist() == expected
    assert (threshold == 1.0) or len(set(expected)) < 80


def templated(count: int, changes: int) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Signatures of texts that share a long template, and pairs that share the rest nearly too."""
    rng = np.random.default_rng(5)
    template = " ".join(f"t{i}" for i in range(80))
    own = [[f"o{i}" for i in rng.integers(0, 10**6, 25)] for _ in range(count)]
    planted = [(count // 2 - 1 - place, count - 1 - place) for place in range(count // 20)]
    for one, other in planted:
        own[other] = [*own[one]]
        for change in range(changes):
            own[other][25 - 1 - 6 * change] = "changed"
    texts = [f"{template} {' '.join(words)}" for words in own]
    return signed(texts, 5, 128), planted


@pytest.mark.parametrize(("changes", "least"), [(0, 100), (1, 100), (2, 95)])
def test_copies_are_found_in_buckets_too_large_to_compare(changes, least):
    # Of 101 n-grams one change at the end leaves 100 of 102, a second one 95 of 107.
    signatures, planted = templated(2000, changes)
    buckets = list(band_buckets(signatures, 25, 5))
    largest = [np.diff(start, append=len(members)).max() for members, start in buckets]
    assert np.median(largest) > 4 * MAX_PIVOTS
    roots = clusters(signatures, 0.8, 25, 5)
    assert sum(roots[one] == roots[other] for one, other in planted) >= least
    assert len(set(roots.tolist())) >= 2000 - 100 - 5  # hardly any other looks alike by chance
    chosen = diverse(signatures, np.arange(2000), 0.8, 25, 5)
    assert sum(chosen[other] == one for one, other in planted) >= least
    assert (chosen == np.arange(2000)).sum() >= 2000 - 100 - 5


@pytest.mark.parametrize("changes", [0, 1, 2, 3])
def test_copies_whose_only_bucket_is_too_large_are_found(changes):
    signatures, planted = templated(2000, changes)  # a pair's rows lie far behind the pivots
    commonest = [np.unique(column, return_counts=True)[1].max() for column in signatures.T]
    signatures = np.roll(signatures, -int(np.argmax(commonest)), axis=1)
    assert max(commonest) > 1900
    alike = [
        (one, other)
        for one, other in planted
        if signatures[one, 0] == signatures[other, 0]
        and (signatures[one] == signatures[other]).mean() >= 0.8
    ]
    assert len(alike) > 40
    roots = clusters(signatures, 0.8, 1, 1)
    assert sum(roots[one] == roots[other] for one, other in alike) >= 0.95 * len(alike)
    chosen = diverse(signatures, np.arange(2000), 0.8, 1, 1)
    assert sum(chosen[other] == one for one, other in alike) >= 0.95 * len(alike)


def test_work_grows_with_the_rows_and_not_with_their_square(monkeypatch):
    compared = []

    def counted(one, others):
        compared.append(len(others))
        return jaccard(one, others)

    monkeypatch.setattr("bon.pipeline.filtering.minhash.jaccard", counted)
    signatures, _ = templated(4000, 0)
    work = []
    for count in (1000, 4000):
        compared.clear()
        clusters(signatures[:count], 0.8, 25, 5)
        diverse(signatures[:count], np.arange(count), 0.8, 25, 5)
        work.append(sum(compared) / count)
    assert work[1] < 1.5 * work[0]  # twice and more where every row of a bucket is compared


def test_left_over_rows_of_other_groups_stay_apart():
    signatures, planted = templated(2000, 0)
    groups = np.zeros(2000, np.int64)
    groups[1000:] = 1
    roots = clusters(signatures, 0.8, 25, 5, groups)
    assert not any(roots[one] == roots[other] for one, other in planted)
    groups[[other for _, other in planted]] = 0
    roots = clusters(signatures, 0.8, 25, 5, groups)
    assert all(roots[one] == roots[other] for one, other in planted)


def test_groups_keep_copies_apart():
    signatures = signed(["a b c d"] * 4)
    assert clusters(signatures, 0.9, 4, 16).tolist() == [0, 0, 0, 0]
    groups = np.array([0, 1, 0, 1])
    assert clusters(signatures, 0.9, 4, 16, groups).tolist() == [0, 1, 0, 1]


def test_empty_input_and_empty_texts():
    assert clusters(np.zeros((0, 64), np.uint32), 0.9, 4, 16).tolist() == []
    assert clusters(signed(["", "a", ""]), 0.9, 4, 16).tolist() == [0, 1, 0]
    nothing = np.zeros(0, np.int64)
    assert diverse(np.zeros((0, 64), np.uint32), nothing, 0.5, 4, 16).tolist() == []


def test_the_diverse_choice_is_greedy_in_the_order_given():
    made = texts(80)
    signatures = signed(made)
    order = np.random.default_rng(3).permutation(80)
    chosen = diverse(signatures, order, 0.4, 64, 1)  # one row a band: every likeness is a match
    kept: list[int] = []
    for row in order.tolist():
        alike = [other for other in kept if (signatures[row] == signatures[other]).mean() >= 0.4]
        assert (chosen[row] == row) == (not alike)
        assert chosen[row] in (alike or [row])
        kept += [] if alike else [row]
    assert 40 <= len(kept) < 80
    few = diverse(signatures, order, 0.4, 64, 1, max_rows=7)
    assert [row for row in order.tolist() if few[row] == row] == kept[:7]
    assert (few == -1).sum() > 0


@pytest.mark.parametrize(("threshold", "num_perm"), [(0.5, 64), (0.8, 128), (0.95, 128), (1.0, 16)])
def test_few_rows_at_the_threshold_are_missed(threshold, num_perm):
    bands, rows = Hasher(2, num_perm, 1, "near_dedup").bands(threshold, None, None)
    assert bands * rows <= num_perm
    assert 1 - (1 - threshold**rows) ** bands >= 0.85


def test_bands_that_are_given_stay():
    assert Hasher(2, 128, 1, "near_dedup").bands(0.8, 14, 8) == (14, 8)
