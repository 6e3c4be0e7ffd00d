"""Near-duplicates: what is merged is alike, what is alike is merged."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.domain.near_duplicates import clusters, similarity

WORDS = st.lists(st.sampled_from(["where", "is", "my", "card", "it", "has", "not", "come", "yet", "now"]), max_size=12).map(" ".join)


def joined_by_brute_force(texts: list[str], threshold: float) -> list[int]:
    """The same clusters by comparing every pair: numbers of components in order of first members."""
    cluster = list(range(len(texts)))
    for a in range(len(texts)):
        for b in range(a):
            if similarity(texts[a], texts[b]) >= threshold - 1e-9:
                old, new = max(cluster[a], cluster[b]), min(cluster[a], cluster[b])
                cluster = [new if one == old else one for one in cluster]
    names: dict[int, int] = {}
    return [names.setdefault(one, len(names)) for one in cluster]


@given(st.lists(WORDS, max_size=25), st.sampled_from([0.5, 0.8, 0.9, 1.0]))
def test_clusters_are_those_of_comparing_every_pair(texts: list[str], threshold: float) -> None:
    assert clusters(texts, threshold=threshold).tolist() == joined_by_brute_force(texts, threshold)


@given(st.lists(st.text(max_size=30), max_size=25))
def test_any_text_is_in_one_cluster_with_its_copies_in_other_case_and_punctuation(texts: list[str]) -> None:
    found = clusters([*texts, *texts]).tolist()
    assert found[: len(texts)] == found[len(texts) :]


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("Where is my new card?", "where is my new card", True),
        ("please cancel order 1042", "please cancel order 1043", False),
        ("I can not verify my card and I do not know why that is so", "I can not verify my card and I do not know why this is so", True),
        ("I can verify my card", "I can not verify my card", False),
        ("我的卡在哪里呢谢谢", "我的卡在哪里呢谢谢!", True),
        ("!!", "??", False),
    ],
)
def test_punctuation_and_case_do_not_count_but_a_number_or_a_word_of_a_short_text_does(one: str, other: str, alike: bool) -> None:
    assert (len(set(clusters([one, other]).tolist())) == 1) == alike


def test_a_thousand_copies_of_one_template_are_found_though_only_neighbours_are_compared() -> None:
    texts = [
        f"dear team please tell me when my parcel with all the books for the school of my child will come {n % 3}" for n in range(1_000)
    ]
    members = defaultdict(set)
    for text, cluster in zip(texts, clusters(texts).tolist(), strict=True):
        members[cluster].add(text)
    assert len(members) == 1
