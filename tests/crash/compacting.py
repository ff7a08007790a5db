"""Campaign 26: a power cut, or a kill, while a store is compacted.

Method: images of power cuts are those of campaigns 1 and 2, of a workload that compacts again and again. Kills are
those of campaign 6, of writers that also compact.

A case is one of those campaigns.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from tests.crash.campaign import Plan, Result, campaign, figures, merged, spread
from tests.crash.powercut import AT_ONCE, Part, parts, run_part
from tests.crash.processes import cases, one_life

if TYPE_CHECKING:
    from collections.abc import Iterator

PROFILE: Final = "compact"
IMAGES_PER_KILL: Final = 100
WRITERS: Final = ("wal+compact-1", "wal+compact-4", "delete+compact-1")


def images(plan: Plan) -> Iterator[Part]:
    """Yield the plan's images in pieces, both journal modes in turn."""
    if plan.case:
        yield from parts(plan, "")
        return
    for number, begin in enumerate(range(0, plan.count, AT_ONCE)):
        size = min(AT_ONCE, plan.count - begin)
        yield Part(PROFILE, ("wal", "delete")[number % 2], plan.seed + number, size)


@campaign(26, "a crash during a compaction", bar="0 lost, half, refused", ci=400, long=20_000)
def compacting(plan: Plan) -> Result:
    """Crash images of a compaction, and kills of writers that compact: one for so many images."""
    found = []
    if ":" in plan.case or not plan.case:
        found.append(merged(spread(plan, run_part, images(plan))))
    if ":" not in plan.case:
        kills = replace(plan, count=max(1, plan.count // IMAGES_PER_KILL))
        found.append(merged(spread(plan, one_life, cases(kills, WRITERS))))
    result = merged(found)
    result.found = f"{result.counts['failures']} bad; {figures(result, 'commits', 'in doubt, rightly')}"
    return result
