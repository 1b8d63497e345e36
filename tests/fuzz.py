"""Throw arbitrary files and arguments at the library for an hour. By hand:

    python tests/fuzz.py [--cases 10000] [--minutes 60] [--only NAME] [--seed N]

It ends when all cases have been tried or the time is over. What is drawn and what must hold stands
in tests/strategies.py, which the tests use too; tests/test_fuzz.py runs a few hundred of these
cases. A case that fails is made as small as possible and printed, with the command that repeats it.
"""
import argparse
import sys
import tempfile
import time
import traceback
from pathlib import Path

from hypothesis import HealthCheck, given, seed, settings
from strategies import CHECKS

ROUND = 50 # cases with one seed


def try_cases(name, number, cases=ROUND, count=None):
    "Draw so many cases for a check; an exception that comes out is a fault of ours."
    strategy, check = CHECKS[name]
    @seed(number)
    @settings(max_examples=cases, deadline=None, database=None,
              suppress_health_check=list(HealthCheck))
    @given(strategy)
    def one(drawn):
        if count is not None: count[name] = count.get(name, 0) + 1
        with tempfile.TemporaryDirectory() as folder: check(Path(folder), drawn)
    one()


def main():
    ask = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ask.add_argument("--cases", type=int, default=10_000)
    ask.add_argument("--minutes", type=float, default=60)
    ask.add_argument("--only", choices=list(CHECKS))
    ask.add_argument("--seed", type=int, help="the first one; by default another each time")
    given = ask.parse_args()
    number = time.time_ns() % 10**6 if given.seed is None else given.seed
    end, count = time.monotonic() + 60 * given.minutes, {}
    while sum(count.values()) < given.cases and time.monotonic() < end:
        for name in [given.only] if given.only else CHECKS:
            try: try_cases(name, number, count=count)
            except Exception:
                traceback.print_exc()
                print(f"\nagain: python tests/fuzz.py --only '{name}' --seed {number} --cases 1")
                sys.exit(1)
        number += 1
    print(f"{sum(count.values()):,} cases, no fault: {count}")


if __name__ == "__main__": main()
