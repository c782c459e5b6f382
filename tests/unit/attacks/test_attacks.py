"""The engine of the attacks: when it stops, what it counts, what it refuses, and that nothing done is lost."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from forq.attacks import criterion as _criterion
from forq.attacks import images as _images
from forq.attacks import labels as _labels
from forq.attacks.attack import attack
from forq.attacks.ball import Ball
from forq.attacks.result import AttackStopped, interval
from forq.attacks.victims import open_victim
from forq.errors import ConfigError, DataError, ForqError
from tests import edge_net
from tests.attacked import Halves, images


@settings(max_examples=60, deadline=None)
@given(
    x=arrays.arrays(np.uint8, (5, 4, 3)),
    k=arrays.arrays(np.float64, (5, 4, 3), elements=st.floats(-600, 600)),
    eps=st.integers(1, 255),
)
def test_projections_land_in_the_ball_and_leave_its_points_alone(x, k, eps):
    for norm in ("linf", "l2"):
        ball = Ball.around(x, norm, eps)
        near = ball.project(k)
        assert ball.holds(near) and (ball.project(near) == near).all()
        assert (ball.image(near).astype(int) - x == near).all()
    box = Ball.around(x, "linf", eps)
    assert (box.project(k) == np.clip(np.rint(k), box.low, box.high)).all()


def test_the_rounded_l2_projection_uses_the_radius():
    rng = np.random.default_rng(0)
    ball = Ball.around(np.full((32, 32, 3), 128, np.uint8), "l2", 127.5)
    lengths = [np.linalg.norm(ball.project(rng.normal(size=(32, 32, 3)) * 20).astype(float)) for _ in range(10)]
    assert min(lengths) > 0.97 * 127.5


def test_a_tie_counts_for_neither_side():
    scores = np.array([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    label, no, yes = np.zeros(3, np.int64), np.zeros(3, bool), np.ones(3, bool)
    assert _criterion.won(scores, label, no).tolist() == [False, False, True]
    assert _criterion.won(scores, label, yes).tolist() == [False, True, False]
    assert _criterion.margins(scores, label).tolist() == [0.0, 1.0, -1.0]
    flat = attack(lambda batch: np.ones((len(batch), 2)) * [2, 1], *images(4), budget=9)
    assert flat.correct.tolist() == [True, False, True, False] and not flat.success.any()


def test_cross_entropy_is_the_log_probability():
    scores = np.array([[2000.0, 1999.0], [0.0, 3.0]])
    result = _criterion.losses(scores, np.array([0, 1]), np.array([False, True]), "cross-entropy")
    assert np.allclose(result, [-np.log1p(np.exp(-1)), np.log1p(np.exp(-3))])


def test_the_first_winning_query_ends_an_image():
    x, y = np.full((3, 4, 4, 1), 100, np.uint8), np.zeros(3, int)
    victim = lambda batch: np.stack([(batch == 100).all(axis=(1, 2, 3)) * 1.0, np.full(len(batch), 0.5)], 1)  # noqa: E731
    result = attack(victim, x, y, recipe="square", budget=50)
    assert result.success.all() and result.queries_per_image.tolist() == [2, 2, 2]
    assert result.curve([1, 2]) == [(1, 0.0), (2, 1.0)]


def test_a_budget_of_one_asks_for_the_original_alone():
    victim = Halves()
    result = attack(victim, *images(4), budget=1)
    assert victim.images == result.queries == 4 and result.checks == 0 and not result.success.any()


def test_a_budget_below_one_step_of_the_method_is_no_silent_attack(caplog):
    """Twenty queries a step do not fit into a budget of 20, since the original is the first."""
    result = attack(Halves(), *images(4), recipe="zo-signsgd", budget=20)
    assert result.queries == 4 and "no image was attacked: the first step of zo-signsgd takes more" in caplog.text
    caplog.clear()
    attack(Halves(), *images(4), recipe="zo-signsgd", budget=21)
    assert not caplog.text


def test_a_victim_that_never_worked_leaves_no_results_to_speak_of(tmp_path):
    with pytest.raises(AttackStopped) as caught:
        attack(_raises, *images(4), out=tmp_path / "run")
    assert "so far" not in str(caught.value) and "once the victim works, the same command goes on" in str(caught.value)


def test_misclassified_images_cost_one_query_and_enter_no_rate():
    x, y = images(8, gap=2)
    y[:3] = 1 - y[:3]
    result = attack(Halves(), x, y, budget=300)
    assert result.correct.tolist() == [False] * 3 + [True] * 5
    assert result.queries_per_image[:3].tolist() == [1, 1, 1] and not result.success[:3].any()
    assert result.summary()["correct"] == 5 and result.summary()["clean_accuracy"] == 5 / 8


def test_a_victim_with_changing_answers_gives_no_success():
    """The check after PNG decides, not the query."""
    x, y = images(4, gap=2)
    seen: set[bytes] = set()

    def moody(batch):
        scores = Halves()(batch)
        for i, image in enumerate(batch):
            if image.tobytes() in seen:
                scores[i] = [9 * (1 - y[0]), 9, 0] if (image == x).all(axis=(1, 2, 3)).any() else [200, 200, 0]
            seen.add(image.tobytes())
        return scores

    result = attack(moody, x, y, budget=300)
    assert result.summary()["found_but_lost_by_rounding"] > 0 and not result.success.any()
    assert (result.images == x).all()
    for outcome in result.outcomes:  # the original is returned, with its own margin and answer
        assert (outcome.margin, outcome.answer) == of_image(Halves(), x[outcome.index], outcome.label, None)


def test_targets_are_reached_or_drawn():
    x, y = images(6, gap=2)
    result = attack(Halves(), x, y, targets=1 - y, budget=300)
    assert result.success.all() and (Halves()(result.images).argmax(1) == 1 - y).all()
    drawn = [outcome.target for outcome in attack(Halves(), x, y, targeted=True, budget=2).outcomes]
    assert all(t in (0, 1, 2) and t != label for t, label in zip(drawn, y, strict=True)) and len(set(drawn)) > 1
    with pytest.raises(DataError, match="its own label"):
        attack(Halves(), x, y, targets=y)


def test_rounding_at_the_end_is_counted():
    """A float image may win by less than rounding moves it."""
    x, y = np.full((2, 4, 4, 1), 100, np.uint8), np.zeros(2, int)

    def fractions(batch):
        off = np.abs(batch * 255 - np.rint(batch * 255)).max(axis=(1, 2, 3))
        return np.stack([np.full(len(batch), 0.01), off], axis=1)

    result = attack(fractions, x, y, recipe="zo-signsgd", settings={"rounding": "end"}, input="float", budget=50)
    assert result.summary()["found_but_lost_by_rounding"] == 2 and not result.success.any()
    with pytest.raises(ForqError, match="--input float"):
        attack(Halves(), *images(2), recipe="zo-signsgd", settings={"rounding": "end"})


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"budget": 0}, ConfigError, "budget: expected at least 1, found 0"),
        ({"batch": 0}, ConfigError, "batch: expected at least 1, found 0"),
        ({"eps": 0}, ConfigError, "more than 0"),
        ({"eps": 256}, ConfigError, "at most 255"),
        ({"eps": 0.03}, ConfigError, "8 means 8/255"),
        ({"eps": 7.5}, ConfigError, "whole levels"),
        ({"eps": float("nan"), "norm": "l2"}, ConfigError, "more than 0"),
        ({"norm": "l1"}, ConfigError, "linf or l2"),
        ({"recipe": "zoqoo"}, ConfigError, "did you mean 'zoqo'"),
        ({"settings": {"tiles": 1}}, ConfigError, "did you mean 'tile'"),
        ({"settings": {"share": "lots"}}, ConfigError, "share"),
        ({"settings": {"share": 0.0}}, ConfigError, "0 … 1"),
        ({"timeout": 0.0}, ConfigError, "more than 0 seconds"),
        ({"seed": -1}, ConfigError, "seed"),
    ],
)
def test_invalid_arguments_are_refused_before_the_first_query(change, error, says):
    victim = Halves()
    with pytest.raises(error, match=says):
        attack(victim, *images(2), **change)
    assert victim.images == 0


@pytest.mark.parametrize(
    ("x", "y", "says"),
    [
        (np.zeros((2, 4, 4, 3), np.float32), [0, 1], "expected uint8"),
        (np.zeros((2, 3, 4, 4), np.uint8), [0, 1], r"\[N, H, W, 3\]"),
        (np.zeros((2, 4, 4, 3), np.uint8), [0], "expected 2"),
        (np.zeros((2, 4, 4, 3), np.uint8), [0, -1], "from 0"),
        (np.zeros((2, 4, 4, 3), np.uint8), [0.0, 1.0], "whole numbers"),
        (np.zeros((2, 4, 4, 3), np.uint8), [0, 7], "classes 0 … 2"),
    ],
)
def test_invalid_data_is_refused(x, y, says):
    with pytest.raises(ForqError, match=says):
        attack(Halves(), x, y)


def _raises(batch):
    raise ValueError("no such layer")


@pytest.mark.parametrize(
    ("breaks", "says"),
    [
        (_raises, "ValueError: no such layer"),
        (lambda batch: np.full((len(batch), 3), np.nan), "NaN"),
        (lambda batch: np.zeros(len(batch)), "shape"),
        (lambda batch: np.zeros((len(batch) + 1, 3)), "shape"),
        (lambda batch: np.zeros((len(batch), 4)), "as before"),
        (lambda batch: "good", "expected an array"),
        (lambda batch: time.sleep(0.5), "within 0.1 s"),
    ],
)
def test_a_victim_that_breaks_loses_nothing(breaks, says, tmp_path):
    good, (x, y) = Halves(), images(12, gap=2)
    calls = []

    def victim(batch):
        calls.append(len(batch))
        return breaks(batch) if len(calls) == 12 else good(batch)

    def go():
        return attack(victim, x, y, recipe="square", budget=40, batch=4, timeout=0.1, out=tmp_path / "run")

    with pytest.raises(AttackStopped, match=says) as caught:
        go()
    partial = caught.value.result
    assert 0 < len(partial.outcomes) < 12
    assert partial.queries + partial.checks == sum(calls)
    rows = [json.loads(row) for row in (tmp_path / "run" / "results.jsonl").read_text().splitlines()]
    assert [row["index"] for row in rows] == [outcome.index for outcome in partial.outcomes]
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert says.split(":")[0].split("|")[0] in summary["stopped"] and summary["queries"] == partial.queries
    assert summary["correct"] > 0
    for name in ("success_rate", "queries_mean", "queries_median", "queries_median_of_success", "norms_of_success"):
        assert summary[name] is None, "easy images are done first: a number of those would be biased"
    assert "Until all images are done, summary.json has counts" in str(caught.value)
    whole = go()  # goes on where it stopped
    straight = attack(Halves(), x, y, recipe="square", budget=40)
    assert (whole.images == straight.images).all()
    assert (whole.queries_per_image == straight.queries_per_image).all()
    assert whole.queries + whole.checks == sum(calls)
    assert whole.summary()["queries_mean"] == straight.summary()["queries_mean"] is not None


def test_one_attack_at_a_time_writes_a_folder(tmp_path):
    good, (x, y), said = Halves(), images(4, gap=2), []

    def victim(batch):
        if not said:
            with pytest.raises(ForqError, match="another forq is writing") as caught:
                attack(Halves(), x, y, recipe="square", budget=40, out=tmp_path / "run")
            said.append(caught.value)
        return good(batch)

    go = [attack(asked, x, y, recipe="square", budget=40, out=tmp_path / "run") for asked in (victim, Halves())]
    assert said and (go[0].images == go[1].images).all()


def test_a_victim_that_misclassifies_everything_stops_the_attack():
    x, y = images(4)
    with pytest.raises(AttackStopped, match="none of 4 images right"):
        attack(Halves(), x, 1 - y)


def test_a_folder_is_continued_with_equal_settings_only(tmp_path):
    x, y = images(4, gap=2)
    out = tmp_path / "run"
    first = attack(Halves(), x, y, budget=300, out=out)
    victim = Halves()
    again = attack(victim, x, y, budget=300, out=out, batch=3)
    assert victim.images == 0 and (again.images == first.images).all() and again.queries == first.queries
    with pytest.raises(ConfigError, match="another budget, seed"):
        attack(Halves(), x, y, budget=301, seed=1, out=out)
    (out / "settings.json").unlink()
    with pytest.raises(ConfigError, match="in the way"):
        attack(Halves(), x, y, budget=300, out=out)
    for index in np.flatnonzero(first.success):
        assert (_images.read_png(out / "adversarial" / f"{index:05d}.png") == first.images[index]).all()


def test_a_folder_in_which_nothing_was_attacked_begins_anew(tmp_path):
    x, y = images(4, gap=2)
    out = tmp_path / "run"
    for labels, says in ((y + 7, "found label 7|found label 8"), (1 - y, "none of 4 images right")):
        with pytest.raises(AttackStopped, match=says):
            attack(Halves(), x, labels, budget=300, out=out)
    result = attack(Halves(), x, y, budget=300, out=out)
    fresh = attack(Halves(), x, y, budget=300)
    assert result.correct.all() and result.queries == fresh.queries and (result.images == fresh.images).all()


def test_an_incomplete_row_is_computed_again(tmp_path):
    x, y = images(5, gap=2)
    out = tmp_path / "run"
    first = attack(Halves(), x, y, budget=300, out=out)
    text = (out / "results.jsonl").read_text()
    (out / "results.jsonl").write_text(text[:-30])
    victim = Halves()
    again = attack(victim, x, y, budget=300, out=out)
    assert victim.images == first.queries_per_image[-1] + first.success[-1]
    assert (again.images == first.images).all() and (out / "results.jsonl").read_text() == text


def test_the_interval_is_wilsons():
    low, high = interval(8, 10)
    assert (round(low, 4), round(high, 4)) == (0.4902, 0.9433)
    assert interval(0, 0) is None and interval(0, 5)[0] == 0.0


def of_image(victim, image, label, target):
    """Margin and answer that a victim gives an image, asked on its own."""
    scores = victim(image[None])[0]
    if target is None:
        return scores[label] - np.delete(scores, label).max(), int(scores.argmax())
    return np.delete(scores, target).max() - scores[target], int(scores.argmax())


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("recipe", ["square", "zoqo", "zo-signsgd"])
def test_the_margin_is_the_returned_images_and_the_lowest_has_its_own_name(recipe, targeted):
    near, far = images(4, gap=2), images(4, gap=30)  # the far ones cannot be reached
    x, y = np.concatenate([near[0], far[0]]), np.concatenate([near[1], far[1]])
    targets = 1 - y if targeted else None
    result = attack(Halves(), x, y, recipe=recipe, budget=300, eps=4, targeted=targeted, targets=targets)
    assert result.success.tolist() == [True] * 4 + [False] * 4
    for outcome in result.outcomes:
        margin, answer = of_image(Halves(), outcome.image, outcome.label, outcome.target)
        assert (outcome.margin, outcome.answer) == (pytest.approx(margin), answer)
        assert outcome.lowest_margin <= outcome.margin + 1e-12
        assert (outcome.margin < 0) == outcome.success
    assert all(outcome.lowest_margin < outcome.margin for outcome in result.outcomes if not outcome.success)


def test_rows_of_older_folders_are_read(tmp_path):
    x, y = images(4, gap=2)
    first = attack(Halves(), x, y, budget=300, out=tmp_path / "a", victim={"sha256": "x"})
    rows = [json.loads(line) for line in (tmp_path / "a" / "results.jsonl").read_text().splitlines()]
    assert all(row["margin"] < 0 and "lowest_margin" in row for row in rows)
    for row in rows:
        row["margin"] = row.pop("lowest_margin")
    (tmp_path / "a" / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    again = attack(Halves(), x, y, budget=300, out=tmp_path / "a", victim={"sha256": "x"})
    assert [outcome.lowest_margin for outcome in again.outcomes] == [
        outcome.lowest_margin for outcome in first.outcomes
    ]
    assert all(outcome.margin is None for outcome in again.outcomes)


def test_a_preprocessor_that_is_not_followed_is_named(tmp_path, caplog):
    path = edge_net.floating(tmp_path / "onnx" / "net.onnx")
    open_victim(str(path), floats=True)
    beside = tmp_path / "preprocessor_config.json"
    beside.write_text('{"do_resize": true, "do_normalize": false}')
    open_victim(str(path), floats=True)
    assert not caplog.records
    beside.write_text('{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}')
    open_victim(str(path), floats=True)
    (record,) = caplog.records
    assert "gets images in 0 … 1; preprocessor_config.json beside it" in record.getMessage()


@pytest.mark.parametrize(
    ("name", "told", "named"),
    [
        ("preprocessor_config.json", {"do_normalize": False, "do_rescale": False}, True),
        ("preprocessor_config.json", {"do_normalize": False, "rescale_factor": 1 / 127.5}, True),
        ("preprocessor_config.json", {"do_normalize": False, "rescale_factor": 0.00392156862745098}, False),
        ("processor_config.json", {"image_processor": {"do_normalize": True}}, True),
        ("processor_config.json", {"image_processor": {"do_normalize": False}}, False),
        ("processor_config.json", {"processor_class": "CLIPProcessor"}, False),
        ("config.json", {"architecture": "resnet18", "pretrained_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}, True),
        ("config.json", {"architecture": "resnet18", "pretrained_cfg": {"mean": [0.0] * 3, "std": [1.0] * 3}}, False),
        ("config.json", {"model_type": "vit", "mean": [0.5] * 3}, False),
    ],
)
def test_every_file_that_says_what_a_network_takes_is_looked_at(name, told, named, tmp_path, caplog):
    path = edge_net.floating(tmp_path / "net.onnx")
    (tmp_path / name).write_text(json.dumps(told))
    open_victim(str(path), floats=True)
    assert [f"{name} beside it" in record.getMessage() for record in caplog.records] == [True] * named


def test_labels_in_order_need_names_of_one_order(tmp_path):
    """A folder 0.png … 10.png and labels in that order: the third image is 10.png."""
    names, said = sorted(f"{n}.png" for n in range(11)), list(range(11))
    np.save(tmp_path / "y.npy", said)
    np.savez(tmp_path / "y.npz", labels=said)
    (tmp_path / "y.json").write_text(json.dumps(said))
    for name in ("y.npy", "y.npz", "y.json"):
        with pytest.raises(
            DataError, match=r"found 10\.png before 2\.png by text and behind it by number; give labels by"
        ):
            _labels.read(tmp_path / name, names)
        for fine in ([f"{n:02}.png" for n in said], [f"{n}.png" for n in range(9)], ["a1f.png", "a20.png", "a3.png"]):
            assert _labels.read(tmp_path / name, fine).tolist() == said
    (tmp_path / "named.json").write_text(json.dumps({f"{n}.png": n for n in said}))
    assert _labels.read(tmp_path / "named.json", names).tolist() == [0, 1, 10, *range(2, 10)]
