"""Every chapter of the bench, each in a process of its own: `python -m bench`.

    python -m bench [CHAPTER ...]

Every chapter prints its tables and appends their lines to `bench/results`, whatever the
device. Rivals that are not installed are left out.
"""

import argparse
import importlib.util
import subprocess
import sys
import time

CHAPTERS = {  # what keeps each within its share of 15 minutes on 2 cores
    "accuracy": [],
    "activations": ["--repeats", "9"],
    "losses": [],
    "metric": [],
    "segmentation": [],
    "optimizers": [],
    "second_order": [],
    "sweep": [],
}
RIVALS = "torch", "pytorch_metric_learning", "monai", "optimistix"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("chapters", nargs="*", default=[*CHAPTERS], metavar="CHAPTER")
    chapters = parser.parse_args().chapters
    for chapter in chapters:
        if chapter not in CHAPTERS:
            parser.error(f"CHAPTER must be one of {', '.join(CHAPTERS)}, got {chapter}")
    absent = [rival for rival in RIVALS if not importlib.util.find_spec(rival)]
    if absent:
        print(f"Not installed, and so left out: {', '.join(absent)}.")

    failed = []
    for number, chapter in enumerate(chapters, 1):
        module = [f"bench.{chapter}", *CHAPTERS[chapter]]
        print(
            f"\n{number} of {len(chapters)}: python -m {' '.join(module)}", flush=True
        )
        start = time.perf_counter()
        code = subprocess.run([sys.executable, "-m", *module]).returncode
        ending = f"ended with {code} after" if code else "took"
        print(f"{chapter} {ending} {time.perf_counter() - start:.0f} s", flush=True)
        failed += [chapter] * bool(code)
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
