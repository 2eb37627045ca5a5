"""The published table beside ours: every variant and task, rank correlation, noise, mean over the sweep, minutes.

    python benchmarks/table.py [--noise] [--csv table.csv] [--settings settings.csv] > table.md
    python benchmarks/table.py --from DIR [DIR...]       # folders of `python -m evaluator score --out DIR`

Reads the entries of history/ (or the folders of --from) that were scored under --protocol, the reference rows of
benchmarks/results/references/ where they are comparable, and published.csv. Of a variant with several evaluations
the one with most settings done is shown, the latest of those. A task is compared where all its settings are done;
elsewhere stands how many are. A mean of six stands where all six tasks are whole, and is a MAD score under `mad`
alone; what each task's baseline setting scored alone stands in a table of its own, and how well each setting would
stand for its task in another. Minutes are those of training, set-up included. A cell is bold that misses the published
one by more than 0.03 and by more than two sigma of the noise over seeds: evaluator/noise.csv, or with --noise the spread
pooled over all variants found here that have several seeds. Exit status 2, with a sentence, where what was found can't
stand in one table.
"""

import argparse
import csv
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from measured import (
    MEAN,
    REFERENCES,
    Measured,
    Scores,
    TableError,
    agreement_of,
    chosen,
    correlations,
    load,
    misses,
    of_history,
    one_fingerprint,
    pooled,
    published,
    references,
    standings,
)

from evaluator.noise import of_settings, sigmas
from evaluator.protocol import COLUMNS, PROTOCOLS, Protocol

TASKS = {column: task for task, column in COLUMNS.items()}
CELLS = (*TASKS, MEAN)
FIELDS = ("set", "variant", "column", "settings_done", "settings_total", "published", "ours", "difference", "sigma", "misses",
          "sweep_mean", "seeds", "minutes", "device", "status", "entry", "note")  # fmt: skip


def number(value: float | None, form: str = ".3f") -> str:
    return "-" if value is None else format(value, form)


def row_of(m: Measured | None, name: str, kind: str, theirs: Scores, sigma: Scores) -> Iterator[dict[str, Any]]:
    """One record for each cell of a variant's row; `kind` is the published set, or nothing."""
    ours, swept = (m.scores("accuracy"), m.scores("sweep_mean")) if m else ({}, {})
    about = {"seeds": len(m.seeds), "minutes": round(m.minutes, 2), "device": m.device, "status": m.status,
             "entry": m.folder.name} if m else {"status": "not run"}  # fmt: skip
    for column in CELLS:
        task = m.tasks.get(TASKS[column]) if m and column in TASKS else None
        counts = (task["settings_done"], task["settings_total"]) if task else (m.done, m.total) if m else (0, None)
        a, b = ours.get(column), theirs.get(column)
        yield {
            "set": kind, "variant": name, "column": column, "settings_done": counts[0], "settings_total": counts[1],
            "published": b, "ours": a, "difference": None if a is None or b is None else a - b, "sigma": sigma.get(column),
            "misses": int(misses(a, b, sigma.get(column), len(m.seeds) if m else 1)), "sweep_mean": swept.get(column),
            "note": REFERENCES.get(name, ""), **about,
        }  # fmt: skip


def cell(record: Mapping[str, Any]) -> str:
    """Ours, then what was published and the difference; a partial task shows how far it is, and no score."""
    ours, theirs = record["ours"], record["published"]
    if ours is None:
        done = f"{record['settings_done']}/{record['settings_total']}" if record["settings_total"] else "-"
        return done if theirs is None else f"{done} ({theirs:.3f})"
    if theirs is None:
        return f"{ours:.3f}"
    text = f"{ours:.3f} ({theirs:.3f}, {record['difference']:+.3f})"
    return f"**{text}**" if record["misses"] else text


def by_variant(records: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The records of each row of the table, which come one after another."""
    return [list(records[i : i + len(CELLS)]) for i in range(0, len(records), len(CELLS))]


def markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *lines])


def labelled(variant: str) -> str:
    return f"{variant} ({REFERENCES[variant]})" if variant in REFERENCES else variant


def main_table(records: Sequence[dict[str, Any]]) -> str:
    """A line a variant: settings done, its six columns and their mean, minutes, entry."""
    lines = []
    for row in by_variant(records):
        mean = row[-1]  # counts the settings of all tasks
        lines.append([labelled(mean["variant"]), progress(mean), *map(cell, row), number(mean.get("minutes"), ".1f"), mean.get("entry", "-")])
    return markdown(["variant", "settings", *CELLS, "minutes", "entry"], lines)


def progress(mean: Mapping[str, Any]) -> str:
    if not mean["settings_total"]:
        return "not run"
    done, total, status = mean["settings_done"], mean["settings_total"], mean["status"]
    words = [f"partial {done}/{total}" if done < total else f"{done}/{total}"]
    return " ".join(words + [status] * (status not in ("scored", "partial")))


def sweep_table(records: Sequence[dict[str, Any]]) -> str:
    """Best of the sweep, which is chosen on test data, beside the mean over the sweep."""
    rows = [row for row in by_variant(records) if any(r["ours"] is not None for r in row)]
    lines = [[row[0]["variant"], *(f"{number(r['ours'])} / {number(r['sweep_mean'])}" for r in row)] for row in rows]
    return markdown(["variant", *CELLS], lines)


def baseline_table(ours: Mapping[str, Measured]) -> str:
    """The best of the sweep at each task's baseline setting, for all that have one, best first; no score of a task stands here."""
    rows = [(labelled(name), m.baselines()) for name, m in ours.items()]
    rows = sorted((r for r in rows if any(score is not None for score in r[1].values())), key=lambda r: -(r[1][MEAN] or 0))
    return markdown(["variant", *CELLS], [[name, *(number(scores[c]) for c in CELLS)] for name, scores in rows])


def correlation_table(sets: Mapping[str, Mapping[str, Scores]], ours: Mapping[str, Scores]) -> str:
    lines = []
    for name, theirs in sets.items():
        found = correlations(theirs, ours)
        lines.append([name, *(f"{number(r, '.2f')} (n = {n})" for r, n in found.values())])
    return markdown(["set", *CELLS], lines)


def standing_table(ours: Mapping[str, Measured], protocol: Protocol) -> str:
    """Each setting as it would stand for its task alone; those that `fast` trains are marked."""
    fast, sigma = PROTOCOLS["fast"].settings, of_settings(protocol)
    lines = [[s.setting.task, s.setting.name + " (fast)" * (s.setting in fast), f"{s.lowest:.3f} to {s.highest:.3f}",
              f"{number(s.correlation, '.2f')} (n = {s.variants})", f"{s.distance:.4f}",
              number(sigma[f"{s.setting.task}:{s.setting.name}"], ".4f"), f"{s.seconds:.0f}"] for s in standings(ours, protocol)]  # fmt: skip
    return markdown(["task", "setting", "scores", "Spearman with its task", "distance from it", "sigma over seeds", "seconds"], lines)


def noise_table(sigma: Scores, sources: Mapping[str, str], protocol: Protocol) -> str:
    """Sigma of each column; of one that was not measured whole, between what its settings leave open."""
    bounds = {c: (s, s) if (s := sigma[c]) is not None else bounds_of(task, protocol) for task, c in COLUMNS.items()}
    low, high = (math.hypot(*(b[side] for b in bounds.values())) / len(bounds) for side in (0, 1))
    rows = [(c, *bounds[c], sources[c]) for c in TASKS]
    rows += [(MEAN, low, high, f"a mean of six of one seed is known to +- {_between(2 * low, 2 * high)}")]
    lines = [[c, _between(low, high), source] for c, low, high, source in rows]
    return markdown(["column", "sigma", "from"], lines)


def _between(low: float, high: float) -> str:
    if math.isinf(high):
        return f"at least {low:.4f}" if low else "-"
    return f"{low:.4f}" if low == high else f"{low:.4f} to {high:.4f}"


def bounds_of(task: str, protocol: Protocol) -> tuple[float, float]:
    """The sigma of a column, which is a mean over settings, if those never measured had no noise, and if each had that of
    the noisiest of them that was. The second is no bound where one that was not measured is noisier.
    """
    of_task = [sigma for name, sigma in of_settings(protocol).items() if name.startswith(f"{task}:")]
    known = [sigma for sigma in of_task if sigma is not None]
    others = [max(known, default=math.inf)] * (len(of_task) - len(known))
    return math.hypot(*known) / len(of_task), math.hypot(*known, *others) / len(of_task)


def noise_of(found: Sequence[Measured], pool: bool) -> tuple[dict[str, float | None], dict[str, str]]:
    """Sigma of each column and where it is from: pooled over what was found if asked for, else the stored table."""
    sigma = sigmas(found[0].protocol)
    sources = {c: "its settings that were measured; the others as none and as the noisiest of them" if s is None else "evaluator/noise.csv" for c, s in sigma.items()}
    for column, (value, variants, freedom) in (pooled(found) if pool else {}).items():
        sigma[column], sources[column] = value, f"pooled over {variants} variants, {freedom} degrees of freedom"
    return sigma, sources


def records_of(
    sets: Mapping[str, Mapping[str, Scores]], ours: Mapping[str, Measured], sigma: Scores
) -> dict[str, list[dict[str, Any]]]:
    """Published set, or "not published" -> the records of its rows."""
    result = {
        name: [r for v, scores in theirs.items() for r in row_of(ours.get(v), v, name, scores, sigma)]
        for name, theirs in sets.items()
    }
    known = {v for theirs in sets.values() for v in theirs}
    rest = [m for v, m in sorted(ours.items()) if v not in known]
    return result | {"not published": [r for m in rest for r in row_of(m, m.name, "", {}, sigma)]}


def report(found: Sequence[Measured], pool: bool) -> tuple[str, list[dict[str, Any]]]:
    """The whole page, and every cell as a record."""
    one_fingerprint(found)
    ours, sets, first = chosen(found), published(), found[0]
    sigma, sources = noise_of(found, pool)
    tables = records_of(sets, ours, sigma)
    scores = {name: m.scores("accuracy") for name, m in ours.items()}
    everything = [r for records in tables.values() for r in records]
    score = "MAD score" if first.protocol.name == "mad" else "no MAD score"
    page = [f"Protocol {first.protocol.name}-{first.protocol.version}, fingerprint {first.fingerprint}; {MEAN}: {score}. "
            "A cell: ours (published, difference)."]  # fmt: skip
    page += [f"## {name}\n\n{main_table(records)}" for name, records in tables.items() if records]
    page += [f"## Rank correlation (Spearman), over the rows whole there\n\n{correlation_table(sets, scores)}"]
    shown = [r for v in ours for r in row_of(ours[v], v, "", {}, sigma)]
    page += [f"## Best of the sweep / mean over the sweep\n\n{sweep_table(shown)}"]
    if first.protocol.name == "mad":
        related, distance, variants = agreement_of(PROTOCOLS["fast"].settings, ours)
        page += [f"## Each setting alone, over the variants whole in its task\n\nThe mean of six of `fast`'s settings has a Spearman of "
                 f"{number(related, '.2f')} with the {MEAN} of all and a distance of {number(distance, '.4f')} from it (n = {variants}). "
                 "A distance is the standard deviation, over the variants, of what one is above the other.\n\n"
                 f"{standing_table(ours, first.protocol)}"]  # fmt: skip
    page += [f"## Baseline settings alone\n\n{baseline_table(ours)}"]
    page += [f"## Noise over seeds\n\n{noise_table(sigma, sources, first.protocol)}"]
    return "\n\n".join(page) + "\n", everything


def settings_of(found: Mapping[str, Measured]) -> Iterator[dict[str, Any]]:
    """One record for each setting that is done."""
    for m in found.values():
        for task, result in m.tasks.items():
            for name, s in result["settings"].items():
                best = {f"best_{k}": v for k, v in s["best"].items()}
                yield {"variant": m.name, "task": task, "setting": name, "accuracy": s["accuracy"], "sweep_mean": s["sweep_mean"],
                       **best, "seconds": s["seconds"], "seeds": len(m.seeds), "entry": m.folder.name}  # fmt: skip


def write(path: Path, fields: Sequence[str], records: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fields, lineterminator="\n", restval="")
        writer.writeheader()
        writer.writerows(records)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--history", type=Path, default=Path("history"), metavar="DIR")
    parser.add_argument("--from", dest="folders", type=Path, nargs="+", metavar="DIR", help="evaluations instead of a history")
    parser.add_argument("--protocol", default="mad", choices=sorted(PROTOCOLS), help="of the history's entries (default: mad)")
    parser.add_argument("--fingerprint", help="of the history's entries, where there are several")
    parser.add_argument("--noise", action="store_true", help="pool the spread over all variants with several seeds")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="takes every cell")
    parser.add_argument("--settings", type=Path, metavar="FILE", help="takes every setting that is done, as CSV")
    args = parser.parse_args(arguments)
    try:
        found = [load(f) for f in args.folders] if args.folders else of_history(args.history, args.protocol)
        found = [m for m in found if args.fingerprint in (None, m.fingerprint)]
        found += [] if args.folders else references(found)
        page, records = report(found, args.noise)
    except TableError as error:
        print(f"table: {error}", file=sys.stderr)
        return 2
    print(page, end="")
    if args.csv:
        write(args.csv, FIELDS, records)
    if args.settings:
        rows = list(settings_of(chosen(found)))
        write(args.settings, list(rows[0]) if rows else [], rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
