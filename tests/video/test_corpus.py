"""Files with faults: what reading them comes to, in processes that may hang or crash."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import corpus
import pytest
from installed import BACKENDS

from taghead.data.workers import run_isolated

ALLOWED = [corpus.WHOLE, corpus.PICTURES, corpus.REFUSED, corpus.HIDDEN]


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> list[corpus.Job]:
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "faulty").mkdir()
    jobs = list(corpus.write_corpus(corpus.write_sources(folder), folder / "faulty", each=16))
    assert len(jobs) >= 500
    assert len({job.path for job in jobs}) == len(jobs)
    return jobs


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_fault_hangs_crashes_or_drops_frames(
    jobs: list[corpus.Job], backend: str, tally: Callable[[str], None]
) -> None:
    ends: dict[corpus.Job, str] = {}
    asked = [replace(job, backend=backend) for job in jobs]
    for job, end in run_isolated(corpus.read_all, asked, 2, lambda job: 30):
        ends[job] = end if isinstance(end, str) else end.reason
    assert len(ends) == len(jobs)
    counts = Counter(ends.values())
    tally(f"{len(ends)} faulty files, {backend}: {_listed(counts)}")
    assert not {job.path.name: end for job, end in ends.items() if end not in ALLOWED}
    for job, end in ends.items():
        if job.kind in ("empty", "text", "noise", "directory", "missing", "audio only"):
            assert end == corpus.REFUSED, job
        elif job.kind == "cut short":
            assert end in (corpus.REFUSED, corpus.WHOLE), job
        elif job.kind in ("wrong extension", "no permission") and backend == "pyav":
            assert end == corpus.WHOLE or job.kind == "no permission", job


def _listed(counts: Counter) -> str:
    zero = dict.fromkeys((*ALLOWED, corpus.DROPPED), 0)
    return ", ".join(f"{count} {end}" for end, count in {**zero, **counts}.items())
