"""Killed at any instant, a command goes on with the same frames and loses one clip at most."""

from __future__ import annotations

from faults.boundary import LASTING


def test_costs(forked, base, referee):
    from faults.conftest import SCENARIOS

    for name in SCENARIOS:
        e = referee(name).ended
        print(
            name,
            "cpu",
            e.cpu,
            "lasting",
            sum(o.split()[0] in LASTING for o in e.operations),
            len(e.operations),
        )
        print(e.err)
        open(f"/tmp/faults-a/{name}.ops", "w").write("\n".join(e.operations))
