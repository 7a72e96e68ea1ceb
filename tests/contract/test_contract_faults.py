"""Some three hundred faults by chance: in applying, in taking back, in a rollback, in a call. More: `benchmarks.faults`."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator

import pytest

from autotune.levers.journal import Journal
from benchmarks.faults.inject import ERRORS, AtChange, AtLine, AtUndo
from benchmarks.faults.plans import FAMILIES, scenes_of
from benchmarks.faults.scenes import PHASES, Counts, Point, sample

SEED = 11
PER_SCENE = 19  # of five or six plans in each of the quick run's three families


@pytest.fixture(autouse=True)
def silent() -> Iterator[None]:
    """What is told of calls that were broken off is told elsewhere."""
    logger = logging.getLogger("autotune")
    logger.disabled = True
    yield
    logger.disabled = False


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", FAMILIES)
def test_whatever_is_broken_off_the_pipeline_is_right(family: str) -> None:
    counts = Counts()
    for name, scene in scenes_of(family):
        for point in sample(scene, PER_SCENE, random.Random(f"{SEED} {family} {name}")):
            scene.suffer(point, counts)
        if name != "traced":  # torch.jit.trace keeps what it traced
            assert scene.unfreed() == (0, 0)
    assert counts.said == [], f"seed {SEED}"
    assert counts.points >= 95
    assert counts.not_reached <= 0.05 * counts.points


class TestInjector:
    """The tool itself: it can fail."""

    def scene(self) -> object:
        return next(scene for name, scene in scenes_of("flux") if name == "groups")

    @pytest.mark.filterwarnings("ignore")
    def test_a_change_that_is_not_taken_back_is_found(self, monkeypatch: pytest.MonkeyPatch) -> None:
        scene = self.scene()
        monkeypatch.setattr("autotune.levers.placed.Placed.put_back", lambda placed: None)
        counts = Counts()
        scene.suffer(Point("apply", "KeyboardInterrupt", scene.count("apply") - 1), counts)
        assert counts.half_applied == 1
        assert "Point(phase='apply', error='KeyboardInterrupt'" in counts.said[0]

    @pytest.mark.filterwarnings("ignore")
    def test_another_image_is_found(self, monkeypatch: pytest.MonkeyPatch) -> None:
        scene = self.scene()
        scene.plain = scene.plain + 1
        counts = Counts()
        scene.suffer(Point("apply", "RuntimeError", 0), counts)
        assert (counts.wrong_images, counts.half_applied) == (1, 0)

    @pytest.mark.filterwarnings("ignore")
    def test_each_phase_has_points_and_each_error_raises(self) -> None:
        scene = self.scene()
        assert all(scene.count(phase) > 0 for phase in PHASES)
        for kind in (AtChange, AtUndo, AtLine):
            for name, fail in ERRORS.items():
                injector = kind(0, fail)
                expected = KeyboardInterrupt if name == "SIGINT" else BaseException
                with pytest.raises(expected):
                    injector.point()
                assert injector.was_reached

    def test_an_undo_that_is_left_fails_no_more_once_the_injector_is_over(self) -> None:
        journal, undone = Journal(), []
        with AtUndo(0, ERRORS["KeyboardInterrupt"]) as injector:
            journal.push(lambda: undone.append("it"))
        journal.undo()
        assert undone == ["it"]
        assert not injector.was_reached
