"""The benchmarks' arithmetic: figures mean what their names say."""

import math
import random

import pytest

from bench import crowd, pool, report, statistics
from bench.figures import figure
from bench.rig import Spawned
from checks import tree


def test_percentiles_are_samples_by_nearest_rank() -> None:
    samples = [float(n) for n in range(100, 0, -1)]
    assert statistics.percentile(samples, 0.99) == 99
    assert statistics.percentile(samples, 0.9) == 90
    assert statistics.percentile([7.0], 0.99) == 7
    assert statistics.percentile([1.0, 2.0, 3.0], 0.5) == 2
    assert statistics.median([4.0, 1.0, 2.0, 3.0]) == 2.5
    summary = statistics.summarize(samples)
    assert (summary.n, summary.min, summary.p50) == (100, 1, 50.5)
    with pytest.raises(ValueError, match="no samples"):
        statistics.median([])


def test_a_round_that_was_slow_for_both_does_not_blur_the_ratio() -> None:
    """Noise that both share cancels; the same noise apart does not."""
    chance = random.Random(7)  # noqa: S311
    floor = [10 * math.exp(chance.gauss(0, 0.5)) for _ in range(60)]
    ours = [1.2 * sample for sample in floor]
    together = statistics.ratio(ours, floor)
    assert together.value == pytest.approx(1.2)
    assert together.high - together.low < 1e-9
    chance.shuffle(ours)
    apart = statistics.ratio(ours, floor)
    assert apart.value == pytest.approx(1.2)
    assert apart.low < 1.15
    assert apart.high > 1.25


def test_an_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    held = 0
    for seed in range(100):
        chance = random.Random(seed)  # noqa: S311
        ours = [chance.gauss(13, 1) for _ in range(40)]
        floor = [chance.gauss(10, 1) for _ in range(40)]
        found = statistics.compare(ours, floor, lambda a, b: a - b, resamples=200)
        held += found.low <= 3 <= found.high
    assert 88 <= held <= 100
    with pytest.raises(ValueError, match="pairs"):
        statistics.ratio([1.0], [1.0, 2.0])


def test_a_missed_target_is_told() -> None:
    slow = figure("x", "ms", [15.0, 14.0], "floor", [10.0, 10.0], target="≤ 3 ms above",
                  limit=lambda _, above: above.value <= 3)  # fmt: skip
    assert slow.met is False
    assert report.row(slow)[-1] == "missed"
    assert report.row(figure("x", "ms", [1.0], "floor", [1.0]))[-1] == ""


def test_claims_are_judged_by_both_percentiles_and_against_no_floor() -> None:
    quick = pool.claim_figure([4.0] * 99 + [30.0], "paced")
    assert report.row(quick) == [
        "pool claim, paced", "ms", "100", "4", "4", "4", "4", "", "", "", "", quick.target, "met",
    ]  # fmt: skip
    assert report.row(pool.claim_figure([4.0] * 98 + [21.0] * 2, "paced"))[-1] == "missed"
    assert report.row(pool.claim_figure([6.0] * 100, "paced"))[-1] == "missed"


def test_a_vm_that_did_not_wait_is_no_claim() -> None:
    pool.require_claimed("pool")
    with pytest.raises(RuntimeError, match="`boot`"):
        pool.require_claimed("boot")


def test_a_time_line_shows_every_step_and_what_lies_beside_them() -> None:
    spawned = [Spawned([10.0], 10.0, [{"admit": 1.0, "launch": 6.0}]) for _ in range(3)]
    line = report.line("Motte", spawned, "rest")
    assert [(bar.step, bar.begin_ms, bar.ms) for bar in line.bars] == [
        ("admit", 0.0, 1.0), ("launch", 1.0, 6.0), ("rest", 7.0, 3.0),
    ]  # fmt: skip
    text = report.timeline_text([line], 10)
    assert text.splitlines()[2] == f"  {'launch':<13}{6.0:8.2f} ms   {'█' * 6}"
    assert report.timeline_svg([line]).count("<title>") == 3


def test_the_recorded_table_is_replaced_and_nothing_else() -> None:
    old = "before\n{}\nold\n{}\nbetween\n{}\nother\n{}\nafter\n".format(
        *report.FIGURES, *report.CROWD
    )
    assert report.between_marks(old, "new", report.FIGURES) == old.replace("old", "new")
    assert report.between_marks(old, "new", report.CROWD) == old.replace("other", "new")
    with pytest.raises(ValueError, match="no marks"):
        report.between_marks("nothing", "new", report.FIGURES)


def level(live: int, p99: float, kib: int) -> crowd.Level:
    spawn = statistics.summarize([p99])
    return crowd.Level(live, spawn, spawn, {"admit": 1.0}, kib // 2, kib // 2, 1024)


def test_a_crowd_is_judged_by_its_targets() -> None:
    """20 MiB, 16 KiB a VM, and the rule tables' own size; twice the first p99."""
    execs = statistics.summarize([1.0])
    most = 20 * 1024 + 16 * 1000 + 1024
    good = crowd.Crowd([level(1, 10, 0), level(1000, 20, most)], execs, 3000, 10)
    assert [line.endswith("met.") for line in crowd.verdicts(good)] == [False, True, True]
    bad = crowd.Crowd([level(1, 10, 0), level(1000, 20.1, most + 2)], execs, 3000, 10)
    assert [line.endswith("missed.") for line in crowd.verdicts(bad)] == [False, True, True]
    assert len({len(line) for line in crowd.rows(good)}) == 1


def test_a_crowd_is_refused_where_there_is_no_room() -> None:
    crowd.require_room(1)
    with pytest.raises(SystemExit, match=r"want \d+ MiB of free memory"):
        crowd.require_room(1 << 30)


def test_the_floor_is_none_of_the_root_half() -> None:
    """Else it would rise with what it is to judge; decision 0078."""
    included = {
        line.split('"')[1]
        for path in (tree.ROOT / "bench" / "floor").glob("*.[ch]")
        for _, line in tree.lines(path)
        if line.startswith('#include "')
    }
    allowed = {
        "bench/common/bench.h",
        "bench/floor/floor.h",
        "netfilter/netfilter.h",
        "priv/seccomp.h",
        "vsock/wire.h",
    }
    assert included == allowed
    built = (tree.ROOT / "bench" / "floor" / "CMakeLists.txt").read_text(encoding="utf-8")
    assert "motte_priv_server" not in built
