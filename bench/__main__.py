"""Runs the chapters of the bench, each in its own process.

    python -m bench [CHAPTER ...] [--repeats 4]

Every chapter prints its tables and appends their rows to `bench/results`, on any
device. Times are medians of few repeats, so that everything takes less than 15 minutes
on 2 cores; `python -m bench.<chapter>` repeats more often. Baselines that are not
installed are skipped.
"""

import argparse
import importlib.util
import os
import subprocess
import sys
import time

CHAPTERS = (
    "accuracy",
    "activations",
    "losses",
    "linear_head",
    "metric",
    "segmentation",
    "optimizers",
    "steps",
    "second_order",
    "sweep",
    "scale",
)
BASELINES = "torch", "pytorch_metric_learning", "monai", "optimistix"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("chapters", nargs="*", default=[*CHAPTERS], metavar="CHAPTER")
    parser.add_argument("--repeats", type=int, default=4, help="upper bound on repeats")
    given = parser.parse_args()
    chapters = given.chapters
    for chapter in chapters:
        if chapter not in CHAPTERS:
            parser.error(f"CHAPTER must be one of {', '.join(CHAPTERS)}, got {chapter}")
    absent = [name for name in BASELINES if not importlib.util.find_spec(name)]
    if absent:
        print(f"Not installed, skipped: {', '.join(absent)}.")

    environment = os.environ | {"BENCH_REPEATS": str(given.repeats)}
    failed = []
    for number, chapter in enumerate(chapters, 1):
        command = [sys.executable, "-m", f"bench.{chapter}"]
        print(f"\n{number} of {len(chapters)}: {' '.join(command[1:])}", flush=True)
        start = time.perf_counter()
        code = subprocess.run(command, env=environment).returncode
        ending = f"ended with {code} after" if code else "took"
        print(f"{chapter} {ending} {time.perf_counter() - start:.0f} s", flush=True)
        failed += [chapter] * bool(code)
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
