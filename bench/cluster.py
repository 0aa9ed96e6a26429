"""A release made by many nodes, as a simulation of its events: who makes which part when, what is
lost with a node, and how the driver keeps up with the summaries.

Nothing of safegen runs here. What is simulated is the design: a worker makes a part from beginning
to end and gives a summary back, the driver merges summaries in the order of the parts, a lost node
costs the parts that it was making, and each is begun three times at most. How long a part
takes hangs on the seed, the part and the attempt alone, so that settings can be compared.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass, replace

import numpy as np

__all__ = ["Cluster", "Outcome", "Work", "simulated"]

HOUR = 3_600.0
LATE = 1.5  # times the usual, after which a part is made again beside, where that is wanted


@dataclass(frozen=True)
class Cluster:
    """Nodes, and how they fail. failures: of a node in an hour, without memory. repair: seconds
    until another stands in for it."""

    nodes: int = 100
    cores: int = 16
    failures: float = 0.001
    repair: float = 300.0


@dataclass(frozen=True)
class Work:
    """What is to be done, in seconds and bytes.

    part: the median time of a part on one core; spread: the standard deviation of its logarithm;
    slow: the share of parts that take a multiple, by a Pareto law of this power above 1. start: of
    a worker, which loads the model. put: writing a part's files to the store. merge: of a summary
    by the driver; bandwidth: bytes a second into the driver. copies: whether idle workers make the
    parts again that are late, and the first counts. in_order: whether a summary waits for those of
    earlier parts; if not, what lies side by side is merged at once.
    """

    parts: int
    part: float
    spread: float = 0.15
    slow: float = 0.01
    power: float = 2.0
    start: float = 10.0
    put: float = 0.5
    merge: float = 0.01
    summary: float = 1e6
    bandwidth: float = 1.25e9
    tries: int = 3
    ahead: int = 4
    copies: bool = False
    in_order: bool = True


@dataclass(frozen=True)
class Outcome:
    """What came of it. merged: parts whose summary was merged, each once. useful, spent: core
    seconds of those attempts that count, and of all. lost: nodes. again: attempts that were lost
    with a node. waiting: most summaries that the driver held at once, unmerged or in runs apart.
    driver: seconds that the driver was busy. last: seconds at the end in which fewer than nine in
    ten workers had a part. failed: parts that were lost too often: the run ends, to be resumed."""

    seconds: float
    merged: int
    useful: float
    spent: float
    lost: int
    again: int
    waiting: int
    driver: float
    last: float
    failed: int


def durations(work: Work, seed: int) -> np.ndarray:
    """(parts, tries) seconds of each attempt."""
    rng = np.random.default_rng(seed)
    shape = (work.parts, work.tries + 1)
    times = work.part * np.exp(rng.normal(0.0, work.spread, shape))
    factors = 1.0 + rng.pareto(work.power, shape)
    return np.where(rng.random(shape) < work.slow, times * factors, times)


class _Run:
    def __init__(self, cluster: Cluster, work: Work, seed: int):
        self.cluster, self.work = cluster, work
        self.times = durations(work, seed)
        self.rng = np.random.default_rng([seed, 1])
        self.events: list[tuple[float, int, str, tuple[int, ...]]] = []
        self.number = 0
        self.queue = deque(range(work.parts))
        self.tried = np.zeros(work.parts, dtype=int)  # attempts begun
        self.lost_of = np.zeros(work.parts, dtype=int)  # attempts lost
        self.done = np.zeros(work.parts, dtype=bool)
        self.epoch = [0] * cluster.nodes
        # By node: worker → part, and since when.
        self.running: list[dict[int, tuple[int, float]]] = [{} for _ in range(cluster.nodes)]
        self.idle: list[tuple[int, int, int]] = []  # node, epoch, worker
        self.copied: set[int] = set()
        self.oldest: deque[tuple[float, int]] = deque()  # since when, which part, in order
        self.alarm = 0.0
        self.useful = self.spent = self.driver = self.end = self.link = self.took = 0.0
        self.lost = self.again = self.waiting = self.failed = 0
        self.arrived: dict[int, None] = {}  # and wait, in the order in which they came
        self.held: set[int] = set()  # merged
        self.merging = False
        self.next = self.merged = self.runs = 0  # runs of merged parts side by side
        self.busy, self.full = 0, 0.0

    def at(self, time: float, kind: str, *what: int) -> None:
        self.number += 1
        heapq.heappush(self.events, (time, self.number, kind, what))

    def go(self) -> Outcome:
        for node in range(self.cluster.nodes):
            self.begin(0.0, node)
        while self.merged < self.work.parts and not self.failed:
            time, _, kind, what = heapq.heappop(self.events)
            getattr(self, f"on_{kind}")(time, *what)
        end = self.end
        return Outcome(
            end, self.merged, self.useful, self.spent, self.lost, self.again, self.waiting,
            self.driver, max(end - self.full, 0.0), self.failed,
        )  # fmt: skip

    def begin(self, time: float, node: int) -> None:
        """A node is there: its workers load the model, and some day it will fail."""
        for worker in range(self.cluster.cores):
            self.at(time + self.work.start, "ready", node, self.epoch[node], worker)
        if self.cluster.failures > 0:
            left = self.rng.exponential(HOUR / self.cluster.failures)
            self.at(time + left, "failure", node, self.epoch[node])

    def on_ready(self, time: float, node: int, epoch: int, worker: int) -> None:
        if epoch != self.epoch[node]:
            return
        part = self.taken(time)
        if part is None:
            self.idle.append((node, epoch, worker))
            return
        attempt = int(self.tried[part])
        self.tried[part] += 1
        self.running[node][worker] = part, time
        self.oldest.append((time, part))
        self.busy += 1
        if self.busy >= 0.9 * self.cluster.nodes * self.cluster.cores:
            self.full = time
        takes = float(self.times[part, min(attempt, self.work.tries)]) + self.work.put
        self.at(time + takes, "made", node, epoch, worker, part)

    def taken(self, time: float) -> int | None:
        """The part that an idle worker begins; None where there is none for it now."""
        most = self.next + self.work.ahead * self.cluster.nodes * self.cluster.cores
        while self.queue and self.queue[0] < most:
            part = self.queue.popleft()
            if not self.done[part]:
                return part
        if self.queue and not self.work.copies:
            return None
        if not self.work.copies:
            return None
        while self.oldest and (self.done[self.oldest[0][1]] or self.oldest[0][1] in self.copied):
            self.oldest.popleft()
        if not self.oldest:
            return None
        since, part = self.oldest[0]
        if time < since + LATE * self.work.part:
            if self.alarm <= time:
                self.alarm = since + LATE * self.work.part
                self.at(self.alarm, "alarm")
            return None
        self.copied.add(part)
        return part

    def on_alarm(self, time: float) -> None:
        """A part may be late now."""
        self.wake(time, len(self.idle))

    def wake(self, time: float, many: int) -> None:
        for _ in range(min(many, len(self.idle))):
            self.at(time, "ready", *self.idle.pop())

    def on_made(self, time: float, node: int, epoch: int, worker: int, part: int) -> None:
        if epoch != self.epoch[node]:  # the node was lost meanwhile
            return
        self.leaves(time, node, worker)
        if not self.done[part]:
            self.done[part] = True
            self.useful += self.took
            self.link = max(self.link, time) + self.work.summary / self.work.bandwidth
            self.at(self.link, "summary", part)
        self.on_ready(time, node, epoch, worker)

    def leaves(self, time: float, node: int, worker: int) -> int:
        """A worker's attempt is over: what it took is spent."""
        part, since = self.running[node].pop(worker)
        if self.busy >= 0.9 * self.cluster.nodes * self.cluster.cores:
            self.full = time
        self.busy -= 1
        self.took = time - since
        self.spent += self.took
        return part

    def on_summary(self, time: float, part: int) -> None:
        """A summary has come to the driver, which merges one at a time."""
        self.arrived[part] = None
        if not self.merging:
            self.merge(time)
        self.waiting = max(self.waiting, len(self.arrived) + self.runs)

    def merge(self, time: float) -> None:
        """Begin with the next summary: in order, or whichever came first."""
        part = self.next if self.work.in_order else next(iter(self.arrived), None)
        self.merging = part in self.arrived
        if self.merging:
            del self.arrived[part]
            self.driver += self.work.merge
            self.at(time + self.work.merge, "merged", part)

    def on_merged(self, time: float, part: int) -> None:
        self.merged += 1
        self.end = time
        if not self.work.in_order:  # what lies side by side is one summary
            self.runs += 1 - (part - 1 in self.held) - (part + 1 in self.held)
        self.held.add(part)
        before = self.next
        while self.next in self.held:
            self.next += 1
        if self.next > before:  # more may be begun
            self.wake(time, self.next - before)
        self.merge(time)

    def on_failure(self, time: float, node: int, epoch: int) -> None:
        if epoch != self.epoch[node]:
            return
        self.lost += 1
        self.epoch[node] += 1
        for worker in [*self.running[node]]:
            part = self.leaves(time, node, worker)
            self.again += 1
            self.lost_of[part] += 1
            if self.done[part]:
                continue
            if self.lost_of[part] >= self.work.tries:
                self.failed += 1
            self.copied.discard(part)
            self.queue.appendleft(part)
        self.wake(time, len(self.queue))
        self.at(time + self.cluster.repair, "return", node, self.epoch[node])

    def on_return(self, time: float, node: int, epoch: int) -> None:
        self.begin(time, node)


def simulated(cluster: Cluster, work: Work, seed: int = 7) -> Outcome:
    """One run."""
    return _Run(cluster, work, seed).go()


def several(cluster: Cluster, work: Work, seeds: range = range(7, 10)) -> list[Outcome]:
    """The same with other seeds."""
    return [simulated(cluster, work, seed) for seed in seeds]


def without_trouble(work: Work) -> Work:
    """Every part takes the same."""
    return replace(work, spread=0.0, slow=0.0)
