"""Runs every variant of a folder with a manifest through the check and compares verdicts with what is expected.

    python tests/torture/attacks.py FOLDER [--sandbox MODE] [--no-reading] [--repeat N] [--jobs N] [--only ID]...

FOLDER holds manifest.json: a list of objects with id, file, name, cls and verdict (accept, reject, flag,
reject-on-gpu, duplicate). Exit status 1 where a verdict is another than expected, or not the same in every round.
So many checks run side by side as there are pairs of processors, or --jobs; their verdicts are printed as they come.
"""

import argparse
import functools
import json
import multiprocessing
import os
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from evaluator import sandbox
from evaluator.check import Verdict, check

# With the reading off these do no harm that a gate could see: the walls hold, and the score is the audit's.
HARMLESS_BEHIND_WALLS = {
    "patch_cross_entropy", "patch_mean", "patch_clock", "patch_print", "atexit_forge", "forge_result_file",
    "symlink_result", "global_module_hook", "detect_time_of_day", "obf_exec_b64", "obf_cr_newline", "obf_unicode_ident",
    "obf_default_arg_exec", "obf_class_body", "load_inline_native", "cuda_stream", "steal_parent_env", "exfil_in_output",
    "targets_via_frames", "targets_via_traceback", "targets_via_gc", "inputs_via_autograd_graph",
    "import_time_side_effect", "state_in_env", "hidden_params",
}  # fmt: skip


def main() -> int:
    options = _options()
    cases = [c for c in json.loads((options.folder / "manifest.json").read_text()) if not options.only or c["id"] in options.only]
    wrong, seen = 0, defaultdict[str, list[str]](list)
    for round_, case, verdict, seconds in _verdicts(cases, options):
        good = _as_expected(case, verdict, options)
        wrong += not good
        seen[case["name"]].append(" ".join((verdict.verdict, *verdict.flags)))
        caught = [f"{g.name}: {g.message}" for g in verdict.gates if not g.passed]
        told = "" if good else f"  WRONG, expected {case['verdict']}"
        shown = f"{round_} {case['id']} {case['name']:28} {verdict.verdict:9} {','.join(verdict.flags)} {seconds:5.1f} s"
        print(f"{shown}{told}  {'; '.join(caught)[:160]}", flush=True)
    flipped = {name: dict(Counter(verdicts)) for name, verdicts in seen.items() if len(set(verdicts)) > 1}
    for name, verdicts in flipped.items():
        print(f"FLIPPED {name}: {verdicts}")
    print(f"{len(cases) * options.repeat} verdicts, {wrong} wrong, {len(flipped)} of {len(cases)} not the same each time")
    return int(wrong > 0 or bool(flipped))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sandbox", default="require")
    parser.add_argument("--no-reading", action="store_true")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 2) // 2))
    parser.add_argument("--timeout", type=float, default=30)
    parser.add_argument("--only", action="append", default=[])
    return parser.parse_args()


Told = tuple[int, dict[str, Any], Verdict, float]
"""A round, a case, what the check said, and the seconds it took."""


def _verdicts(cases: list[dict[str, Any]], options: argparse.Namespace) -> Iterator[Told]:
    todo = [(round_, case) for round_ in range(options.repeat) for case in cases]
    ask = functools.partial(_verdict, options)
    if options.jobs == 1:
        yield from (ask(*one) for one in todo)
        return
    with ProcessPoolExecutor(options.jobs, multiprocessing.get_context("spawn")) as pool:
        for done in as_completed([pool.submit(ask, *one) for one in todo]):
            yield done.result()


def _verdict(options: argparse.Namespace, round_: int, case: dict[str, Any]) -> Told:
    walls, began = sandbox.choose(options.sandbox), time.perf_counter()
    verdict = check(options.folder / case["file"], walls=walls, read_source=not options.no_reading, timeout=options.timeout)
    return round_, case, verdict, time.perf_counter() - began


def _as_expected(case: dict[str, Any], verdict: Verdict, options: argparse.Namespace) -> bool:
    if options.no_reading and case["name"] in HARMLESS_BEHIND_WALLS:
        return True
    wanted = {"accept": ("pass", False), "reject-on-gpu": ("pass", False), "flag": ("pass", True)}
    verdict_wanted, flagged = wanted.get(case["verdict"], (case["verdict"], False))
    return verdict.verdict == verdict_wanted and (bool(verdict.flags) == flagged or verdict_wanted != "pass")


if __name__ == "__main__":
    sys.exit(main())
