"""Reviews: rows are drawn so that every weight is bounded and every draw re-derives; evidence never claims what skips leave open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from holdfast.domain import review
from holdfast.domain.captures import Capture, Prediction
from holdfast.domain.diagnosis import Diagnosis
from holdfast.domain.ids import CaptureId
from holdfast.domain.records import from_plain, to_plain
from holdfast.domain.review import LabelRequest, ReviewRow
from holdfast.domain.review_choice import UNIFORM_SHARE, choose, probabilities
from holdfast.domain.review_csv import read_answers, write_rows
from holdfast.domain.review_evidence import act_on, asks_again, evidence_of
from holdfast.domain.scorers import Scorers
from holdfast.domain.symptoms import lexicon_of
from holdfast.errors import Conflict, DataInvalid, NotFound
from holdfast.testing.clock import NOON
from holdfast.testing.record_builders import a_capture, a_contract, a_label_request, a_review_row

BARE = Scorers(
    embedding=None, witness=None, novelty=None, lexicon=lexicon_of(()), label_ranks={}, label_counts={}, edges={}, calibration={}
)


def captures(count: int, first: int = 1) -> list[Capture]:
    """Captures whose confidence falls and rises with their number."""
    return [a_capture(n, seq=n, prediction=Prediction(label="delivery", confidence=0.3 + n % 7 / 10)) for n in range(first, first + count)]


def answered(request: LabelRequest, share_wrong: float, *, period: str, count: int = 10_000) -> LabelRequest:
    """With the first ``count`` rows of a period answered, of which about a share is wrong."""
    mine = [row for row in request.rows if row.period == period][:count]
    for n, row in enumerate(mine):
        wrong = int((n + 1) * share_wrong) > int(n * share_wrong)
        request = review.answer(request, row.capture_id, "returns" if wrong else row.said, by="ann", at=NOON)
    return request


def asked(row_count: int = 200, since: int = 2_000, before: int = 2_000) -> LabelRequest:
    """A request on drawn rows."""
    old, new = captures(before), captures(since, before + 1)
    rows = choose(new, old, BARE, row_count=row_count, seed="s")
    return a_label_request(rows=rows, since_count=since, before_count=before, onset_seq=before + 1)


def test_the_same_captures_and_seed_give_the_same_rows_and_another_seed_gives_others() -> None:
    old, new = captures(300), captures(400, 301)
    one, two, other = (choose(new, old, BARE, row_count=80, seed=seed) for seed in ("a", "a", "b"))
    assert one == two
    assert {row.capture_id for row in one} != {row.capture_id for row in other}
    assert len(one) == len({row.capture_id for row in one}) == 80
    assert sum(row.period == "before" for row in one) == 20
    assert all((row.seq <= 300) == (row.period == "before") for row in one)


def test_no_weight_exceeds_what_the_uniform_share_allows_and_doubtful_rows_are_likelier() -> None:
    rows = captures(700)
    odds = probabilities(rows, BARE)
    assert odds.sum() == pytest.approx(1.0)
    assert (1.0 / (len(rows) * odds)).max() <= 1.0 / UNIFORM_SHARE + 1e-9
    doubt = np.array([1.0 - c.prediction.confidence for c in rows])
    assert odds[doubt > 0.6].min() > odds[doubt < 0.2].max()


def test_weighted_draws_are_right_on_average() -> None:
    rows, truth = captures(500), np.arange(500) % 7 < 2
    means = []
    for seed in range(200):
        chosen = choose(rows, [], BARE, row_count=40, seed=str(seed))
        values = [row.weight * truth[row.seq - 1] for row in chosen for _ in row.draws]
        means.append(np.mean(values))
    error = np.std(means) / np.sqrt(len(means))
    assert abs(np.mean(means) - truth.mean()) < 4 * error


def test_periods_are_mixed_so_that_the_evidence_of_both_grows_together() -> None:
    first = [row.period for row in asked().rows[:40]]
    assert 8 <= first.count("before") <= 12


def test_where_there_are_no_more_captures_than_wanted_all_are_asked_and_the_rate_is_known_exactly() -> None:
    request = asked(200, since=60, before=0)
    assert len(request.rows) == 60
    found = evidence_of(answered(request, 0.5, period="since"), a_contract())
    assert found.since is not None
    assert (found.since.lower, found.since.mean, found.since.upper) == (0.5, 0.5, 0.5)
    part = evidence_of(answered(request, 0.5, period="since", count=16), a_contract()).since
    assert part is not None and part.row_count == 16
    assert part.upper - part.lower < 44 / 60, "counting alone leaves 44 of 60 open"


def test_many_errors_since_the_change_hurt_and_few_do_not() -> None:
    contract = a_contract(floor=0.8)
    request = asked()
    assert evidence_of(request, contract).outcome == "more labels"
    before = answered(request, 0.05, period="before")
    assert evidence_of(answered(before, 0.6, period="since"), contract).outcome == "hurts"
    good = evidence_of(answered(before, 0.04, period="since"), contract)
    assert good.outcome == "does not hurt"
    assert "does not hurt" in good.words


def test_in_between_the_evidence_says_how_many_labels_more_may_settle_it() -> None:
    found = evidence_of(answered(asked(), 0.25, period="since", count=40), a_contract(floor=0.8))
    assert found.outcome == "more labels"
    assert found.labels_needed > 0
    assert f"about {found.labels_needed:,} labels more" in found.words


def test_a_handful_of_answers_decides_nothing() -> None:
    assert evidence_of(answered(asked(), 1.0, period="since", count=9), a_contract()).outcome == "more labels"


def test_a_loss_against_before_hurts_although_the_floor_is_low() -> None:
    request = answered(answered(asked(800), 0.02, period="before"), 0.4, period="since")
    assert evidence_of(request, a_contract(floor=0.3)).outcome == "hurts"
    assert evidence_of(answered(asked(800), 0.4, period="since"), a_contract(floor=0.3)).outcome != "hurts"


def test_without_an_answer_to_the_control_rows_quality_is_not_said_to_hold_before_the_end() -> None:
    request = answered(asked(), 0.02, period="since")
    assert evidence_of(request, a_contract(floor=0.8)).outcome == "more labels"
    for row in [row for row in request.rows if row.is_open]:
        request = review.skip(request, row.capture_id, by="ann", at=NOON)
    assert evidence_of(request, a_contract(floor=0.8)).outcome == "does not hurt"


def test_the_loop_asks_again_only_when_all_was_answered_and_not_enough_and_the_traffic_has_doubled() -> None:
    contract = a_contract(floor=0.8)
    unclear = answered(answered(asked(), 0.2, period="since"), 0.2, period="before")
    assert evidence_of(unclear, contract).outcome == "more labels"
    done = review.close(unclear, state="closed", because="every row is answered", at=NOON)
    assert asks_again(done, contract, recent_count=4_000, labels_count=100)
    assert not asks_again(done, contract, recent_count=3_999, labels_count=100)
    assert not asks_again(unclear, contract, recent_count=4_000, labels_count=100)
    clear = answered(answered(asked(), 0.9, period="since"), 0.1, period="before")
    clear = review.close(clear, state="closed", because="every row is answered", at=NOON)
    assert asks_again(clear, contract, recent_count=4_000, labels_count=100)
    assert not asks_again(clear, contract, recent_count=4_000, labels_count=200)


def test_skipped_rows_widen_the_interval_on_both_sides() -> None:
    done = answered(asked(), 0.3, period="since")
    plain = evidence_of(done, a_contract()).since
    for row in [row for row in done.rows if row.period == "since"][20:60]:
        done = review.skip(done, row.capture_id, by="ann", at=NOON)
    skipped = evidence_of(done, a_contract()).since
    assert plain is not None and skipped is not None
    assert skipped.lower <= plain.lower and skipped.upper > plain.upper


def test_of_sets_the_loss_is_measured_in_the_metric_of_the_contract() -> None:
    rows = tuple(a_review_row(n, said='["a","b"]', value='["b","c"]') for n in range(30))
    request = a_label_request(rows=rows, since_count=30)
    contract = a_contract(kind="multi-label", labels=("a", "b", "c"), metric="f1")
    found = evidence_of(request, contract).since
    assert found is not None and found.mean == 0.5


@pytest.mark.parametrize("skip", [False, True])
def test_what_is_taken_back_is_asked_again(skip: bool) -> None:
    request = asked()
    first, second = request.rows[:2]
    request = review.answer(request, first.capture_id, "billing", by="ann", at=NOON)
    if skip:
        request = review.skip(request, second.capture_id, by="ann", at=NOON)
    else:
        request = review.answer(request, second.capture_id, "returns", by="bob", at=NOON)
    assert request.next_row == request.rows[2]
    request = review.take_back(request)
    assert request.next_row is not None and request.next_row.capture_id == second.capture_id
    request = review.take_back(request)
    assert request.next_row is not None and request.next_row.capture_id == first.capture_id
    with pytest.raises(Conflict, match="Nobody has answered"):
        review.take_back(request)


def test_an_answer_that_is_corrected_gets_a_source_of_its_own_so_that_its_label_is_the_newest() -> None:
    request = asked()
    name = request.rows[0].capture_id
    sources = []
    for value in ("billing", "returns", "billing"):
        request = review.answer(request, name, value, by="ann", at=NOON)
        sources.append(review.source_of(request.row(name)))
    assert sources == ["review", "review:2", "review:3"]
    assert review.answer(request, name, "billing", by="ann", at=NOON) == request


def test_a_closed_request_takes_nothing_more() -> None:
    request = review.close(asked(), state="closed", because="it is over", at=NOON)
    with pytest.raises(Conflict, match="it is over"):
        review.answer(request, request.rows[0].capture_id, "billing", by="a", at=NOON)
    with pytest.raises(Conflict, match="it is over"):
        review.skip(request, request.rows[0].capture_id, by="a", at=NOON)
    with pytest.raises(Conflict, match="it is over"):
        review.take_back(answered_then_closed())
    assert review.close(request, state="expired", because="late", at=NOON) == request


def answered_then_closed() -> LabelRequest:
    done = answered(asked(), 0.5, period="since", count=1)
    return review.close(done, state="closed", because="it is over", at=NOON)


def test_a_row_of_another_request_is_not_found() -> None:
    with pytest.raises(NotFound, match="row of review"):
        review.answer(asked(), CaptureId("elsewhere"), "billing", by="a", at=NOON)


@pytest.mark.parametrize(
    ("action", "share", "wanted"),
    [("ask for labels", 0.7, "retrain"), ("ask for labels", 0.02, "wait"), ("wait", 0.7, "wait"), ("roll back", 0.7, "roll back")],
)
def test_bought_evidence_changes_only_the_action_of_an_alert_that_asks_for_labels(action: str, share: float, wanted: str) -> None:
    diagnosis = Diagnosis(cause="input drift", action=action, sentence="it drifted")  # type: ignore[arg-type]
    found = evidence_of(answered(answered(asked(), 0.02, period="before"), share, period="since"), a_contract(floor=0.8))
    after = act_on(diagnosis, found)
    assert after.action == wanted
    assert after.sentence == diagnosis.sentence


def test_a_change_without_a_name_is_not_retrained_for() -> None:
    diagnosis = Diagnosis(cause="undetermined", action="ask for labels", sentence="?")
    found = evidence_of(answered(asked(), 0.9, period="since"), a_contract())
    assert found.outcome == "hurts"
    assert act_on(diagnosis, found) == diagnosis


def test_a_request_comes_back_from_its_plain_form() -> None:
    request = answered(asked(40), 0.3, period="since", count=5)
    assert from_plain(LabelRequest, to_plain(request)) == request
    assert request.expires_at - request.asked_at == timedelta(days=7)


def rows_of(*names: str) -> Sequence[ReviewRow]:
    return [replace(a_review_row(n), capture_id=CaptureId(name)) for n, name in enumerate(names)]


def test_a_table_holds_the_rows_that_wait_without_the_answer_of_the_model_unless_it_is_asked_for() -> None:
    rows = [*rows_of("c-1", "c-2"), replace(a_review_row(9), value="billing")]
    texts = {CaptureId("c-1"): "two\nlines, and a comma", CaptureId("c-2"): "=HYPERLINK(1)"}
    table = write_rows(rows, texts, shown=False)
    assert table == 'capture_id,text,label\nc-1,"two\nlines, and a comma",\nc-2,\'=HYPERLINK(1),\n'
    assert "delivery,0.875" in write_rows(rows, texts, shown=True)


@pytest.mark.parametrize(
    ("table", "place", "problem"),
    [
        ("", "line 1", "no column capture_id and no column label"),
        ("capture_id,value\na,b\n", "line 1", "no column label; the columns are capture_id, value"),
        ("capture_id,label\na,x\nb,\na,y\n", "line 4", "a has a label on line 2 already"),
        ('capture_id,text,label\na,"1\n2",x\n,t,y\n', "line 4", "a label without a capture_id"),
        ('capture_id,label\na,"x\n', "line 2", "it is not CSV"),
    ],
)
def test_a_table_that_cannot_be_used_names_its_line(table: str, place: str, problem: str) -> None:
    with pytest.raises(DataInvalid, match=problem) as refused:
        read_answers(table)
    assert refused.value.fields["place"] == place


@pytest.mark.parametrize("divider", [",", ";", "\t"])
def test_tables_of_any_spreadsheet_are_read(divider: str) -> None:
    table = f"\ufeffcapture_id{divider}text{divider}label\r\nc-1{divider}hello{divider}billing\r\n"
    assert read_answers(table) == ((2, "c-1", "billing"),)
