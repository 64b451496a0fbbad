"""The benchmark runs, counts harm correctly, and writes results that can be read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from benchmarks.libraries import BACKENDS, load_library
from benchmarks.plot import svg
from benchmarks.report import comparison, markdown
from benchmarks.timing import RAW, At, Figure, Run, make_figures, measure_alternately, median_and_quartiles
from benchmarks.workloads import _count_harm

pytestmark = pytest.mark.wide

ROOT = Path(__file__).parents[2]
OURS = [(backend, name) for backend, names in BACKENDS.items() for name in names[:3]]


def run_of(*figures: Figure) -> Run:
    return Run({"when": "now", "machine": "this"}, list(figures))


def times(**seconds: list[float]) -> list[Figure]:
    return make_figures(At("memory", "append", 10), seconds)


def test_it_runs_and_what_it_writes_can_be_read(tmp_path):
    command = [sys.executable, "-m", "tests.benchmarks", "--quick", "--backend", "memory"]
    works = ["--work", "times", "--work", "fidelity"]
    done = subprocess.run([*command, *works, "--out", tmp_path], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    run = Run.load(tmp_path / "benchmark.json")
    assert {figure.subject for figure in run.figures} == {"raw", "backend alone", "chathistory"}
    assert "| append, of 1,000 |" in (tmp_path / "benchmark.md").read_text()
    assert ET.parse(tmp_path / "benchmark.svg").getroot().tag.endswith("svg")
    (fidelity,) = (figure for figure in run.figures if figure.work == "fidelity")
    assert fidelity.median == fidelity.size, fidelity.note


@pytest.mark.parametrize(("backend", "name"), OURS)
def test_every_subject_can_be_had(backend, name):
    assert load_library(name).name in {"raw", "backend alone", "chathistory"}


def test_everybody_has_a_call_in_each_round_and_the_order_turns():
    calls = []
    works = {name: lambda name=name: calls.append(name) for name in (RAW, "ours")}
    durations = measure_alternately(works, seconds=9, most=4)
    assert calls[2:] == ["ours", RAW, RAW, "ours", "ours", RAW, RAW, "ours"]
    assert [len(each) for each in durations.values()] == [4, 4]


def test_ratios_are_those_of_the_rounds():
    _, ours = times(raw=[1, 2, 4, 8, 16], ours=[2, 4, 8, 16, 96])
    assert (ours.ratio, ours.ratio_low, ours.ratio_high) == (2, 2, 4)
    assert median_and_quartiles([3, 1, 2]) == (2, 1, 3)


def test_harm_is_counted():
    whole = ["1-0.0 a", "1-0.1 a", "2-0.0 b", "2-0.1 b"]
    assert _count_harm(["1-0", "2-0"], [whole]) == {"lost": 0, "doubled": 0, "interleaved": 0}
    assert _count_harm(["1-0", "2-0", "3-0"], [whole])["lost"] == 2
    assert _count_harm(["1-0", "2-0"], [[*whole, *whole[:2]]])["doubled"] == 2
    mixed = [whole[index] for index in (0, 2, 1, 3)]
    assert _count_harm(["1-0", "2-0"], [mixed])["interleaved"] == 2


def test_two_runs_are_compared_by_their_ratios():
    old, new = run_of(*times(raw=[1.0] * 5, ours=[2.0] * 5)), run_of(*times(raw=[2.0] * 5, ours=[2.0] * 5))
    assert "2.00 ->         1.00 x raw" in comparison(old, new)
    assert "no figure" in comparison(old, old)


def test_a_table_has_a_dash_for_who_cannot():
    listing = make_figures(At("memory", "newest 20", 10), {RAW: [1e-3] * 4})
    table = markdown(run_of(*times(raw=[1e-6] * 4, ours=[2e-6] * 4), *listing))
    assert "| append, of 10 | 1 µs | 2 µs = 2.00 x" in table
    assert "| newest 20, of 10 | 1,000 µs | \N{EN DASH} |" in table


def test_a_picture_needs_nothing_from_elsewhere():
    picture = svg(run_of(*times(raw=[1e-6] * 4, ours=[2e-6] * 4)))
    assert picture.count("http") == 1  # the name of the format itself
    ET.fromstring(picture)
