"""The head refitted on adapted vectors: when it replaces the trained one, and what it is then."""

from __future__ import annotations

import numpy as np
import torch

from holdfast.backends.lora.head import Head, Rows, fit_head, refit_head, score


def blobs(count: int, *, seed: int) -> Rows:
    """Three classes around three corners of a space of 8, a little mixed."""
    chance = np.random.default_rng(seed)
    targets = np.arange(count) % 3
    pooled = 0.6 * chance.normal(size=(count, 8)) + 2.0 * np.eye(3, 8)[targets]
    return Rows(pooled.astype(np.float32), targets.astype(np.int64))


def nonsense() -> Head:
    return Head(torch.zeros(3, 8), torch.tensor([1.0, 0.0, 0.0]))


def perfect() -> Head:
    return Head(100.0 * torch.eye(3, 8), torch.zeros(3))


def hard_to_learn() -> Rows:
    """Rows whose labels say nothing about the blobs."""
    rows = blobs(90, seed=0)
    return Rows(rows.pooled, np.random.default_rng(5).permutation(rows.targets))


def test_a_refitted_head_that_is_as_good_on_validation_is_taken_and_has_learned_from_the_validation_rows() -> None:
    train, validation = blobs(90, seed=0), blobs(30, seed=1)
    found = refit_head(nonsense(), train, validation)
    wanted = fit_head(train, validation, 3).on_all
    assert torch.equal(found.weight, wanted.weight)
    assert torch.equal(found.bias, wanted.bias)


def test_a_trained_head_that_is_clearly_better_on_validation_stays() -> None:
    trained = perfect()
    assert refit_head(trained, hard_to_learn(), blobs(30, seed=1)) is trained


def test_a_trained_head_that_is_one_validation_row_ahead_gives_way() -> None:
    train, plain = blobs(90, seed=0), blobs(30, seed=1)
    train.pooled[:, 7] = plain.pooled[:, 7] = 0.0
    odd = 9.0 * np.eye(1, 8, 7, dtype=np.float32)  # a row of a kind that no training row is
    fitted = fit_head(train, plain, 3).on_train
    label = (int(fitted.logits(torch.from_numpy(odd)).argmax()) + 1) % 3
    validation = Rows(np.concatenate([plain.pooled, odd]), np.append(plain.targets, label))
    ahead = Head(fitted.weight.clone(), fitted.bias)
    ahead.weight[label, 7] += 100.0
    assert score(ahead, validation)[0] > score(fitted, validation)[0]
    assert refit_head(ahead, train, validation) is not ahead


def test_with_too_few_validation_rows_to_tell_the_trained_head_stays() -> None:
    trained = nonsense()
    assert refit_head(trained, blobs(90, seed=0), blobs(19, seed=1)) is trained
