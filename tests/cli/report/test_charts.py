"""Charts of a report: shapes stay in their frame."""

from __future__ import annotations

import re

from sqlstate.cli.report import charts


def test_shapes_stay_in_their_frame_whatever_the_numbers() -> None:
    for points in ([(0.0, 0)], [(5.0, 3)], [(1.0, 1), (1.0, 2)], [(0.0, 1), (9.0, 2**63)], [(0.0, 7), (1.0, 0)]):
        numbers = [float(each) for each in re.findall(r"[\d.]+(?=[HV,]|$)", charts.line([(t, n) for t, n in points]))]
        assert all(0 <= each <= charts.WIDTH for each in numbers)
        drawn, _ = charts.bars(points, min(0, points[0][1]))
        assert all(0 <= bar.x < charts.WIDTH and 0 < bar.height <= charts.HEIGHT for bar in drawn)
    assert charts.bars([(0.0, 10), (60.0, 40)], 0)[1] == 30
    assert [bar.width for bar in charts.row([1, 1, 2])] == [250, 250, 500]
    assert sum(bar.width for bar in charts.row([0, 0])) == 0
