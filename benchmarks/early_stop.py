"""What ending a setting's runs early can have cost: the distance from its score to 1, which no score exceeds.

    python benchmarks/early_stop.py [FOLDER...]      # of evaluations; the shipped history/ where none is given

A run ends at a test accuracy above 0.999, as in the protocol; here the other runs of its setting end with it. The score
is the best of them all, so that whatever the others would have reached, it could only rise, and to 1 at most.
"""

import argparse
from collections import defaultdict
from pathlib import Path

from evaluator.protocol import PROTOCOLS
from evaluator.results import Row, read_rows

STOP = PROTOCOLS["mad"].stop_accuracy


def ended_early(folder: Path) -> dict[str, float]:
    """Task and setting -> score, of those in which a run passed the protocol's bound."""
    runs = defaultdict[tuple[str, str, int], list[Row]](list)
    for row in read_rows(folder):
        runs[row.task, row.setting, row.seed].append(row)
    return {
        f"{task} {setting}, seed {seed}": max(r.accuracy for r in rows)
        for (task, setting, seed), rows in runs.items()
        if max(r.last_accuracy for r in rows) > STOP
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="*", type=Path)
    history = Path(__file__).parent.parent / "history"
    folders = parser.parse_args().folder or sorted(p.parent for p in history.glob("r*/runs.csv"))
    found = {f"{folder.name} {name}": score for folder in folders for name, score in ended_early(folder).items()}
    if not found:
        parser.error("no setting in these folders ended early")
    below = {name: score for name, score in found.items() if score < STOP}
    name, least = min(found.items(), key=lambda item: item[1])
    print(f"{len(found)} settings ended early; the least score of them is {least:.5f} ({name}), {len(below)} of them below {STOP}.")
    print(f"Without the early end no setting's score would be higher by more than {1 - least:.5f}.")


if __name__ == "__main__":
    main()
