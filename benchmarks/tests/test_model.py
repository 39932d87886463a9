"""The model of more CPUs."""

from __future__ import annotations

import pytest

import model
from model import Inputs

INPUTS = Inputs(wall=1.5, unpack=1.4, directories=0.1, decode=0.4, hash=0.1, kernel=0.5, frames=40)


def test_with_one_worker_it_is_what_was_measured() -> None:
    for form in (model.processes, model.processes_flat, model.threads):
        assert form(INPUTS, 1) == pytest.approx(INPUTS.wall)


def test_the_parts_add_up() -> None:
    assert INPUTS.serial == pytest.approx(0.2)
    assert INPUTS.work == pytest.approx(1.3)
    assert INPUTS.python == pytest.approx(0.3)


def test_more_workers_than_frames_gain_nothing() -> None:
    assert model.processes(INPUTS, 40) == model.processes(INPUTS, 64) == pytest.approx(0.2 + 1.3 / 40)
    # With 32, some have two frames and the others wait for them.
    assert model.processes(INPUTS, 32) == pytest.approx(0.2 + 1.3 * 2 / 40)


def test_threads_wait_for_the_gil() -> None:
    assert model.threads(INPUTS, 2) == model.processes(INPUTS, 2)
    assert model.threads(INPUTS, 64) == pytest.approx(0.2 + 0.3)


def test_a_kernel_that_does_not_scale_keeps_its_half() -> None:
    assert model.processes_flat(INPUTS, 2) == pytest.approx(model.processes(INPUTS, 2))
    assert model.processes_flat(INPUTS, 64) == pytest.approx(0.2 + 0.8 / 40 + 0.25)


def test_steps_measured_slower_alone_than_together_leave_nothing_for_python() -> None:
    assert Inputs(wall=1, unpack=0.9, directories=0.1, decode=0.8, hash=0.1, kernel=0.2, frames=2).python == 0
