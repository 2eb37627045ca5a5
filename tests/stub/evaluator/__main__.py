"""Marks in a variant's source tell it what to do: `# stub: reject`, `duplicate`, `crash`, `hang`, `train-failed`,
`audit-failed`, `slow`, `environment`, `gates-environment`, `partial`, `score=0.5`, `environ` (leaves its environment
behind). Files beside variants/ do so for all of them: `hang`, `hang-gates`; `mended` ends `slow` and ..`environment`."""

import argparse
import csv
import hashlib
import json
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

TASKS = {
    "compression": "Compress",
    "in-context-recall": "Context Recall",
    "fuzzy-in-context-recall": "Fuzzy Recall",
    "memorization": "Memorize",
    "noisy-in-context-recall": "Noisy Recall",
    "selective-copying": "Selective Copy",
}
FINGERPRINT = {name: hashlib.sha256(name.encode()).hexdigest()[:16] for name in ("smoke", "fast", "mad")}
SIGMA = 0.001
SETTINGS = ["baseline", "seq_len=64"]
PROTOCOL = {
    "version": 1, "lrs": [0.001], "weight_decays": [0.0, 0.1],
    "settings": [{"task": task, "vocab_size": 16, "seq_len": 32, "num_train_examples": 512} for task in TASKS for _ in SETTINGS],
}  # fmt: skip
RUN = "task,setting,lr,weight_decay,seed,accuracy,loss,epochs,seconds,audited,reported_accuracy,last_accuracy,fresh_accuracy,best_epoch,setup_seconds"


def main() -> int:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("protocol", "check", "score", "part"):
        command = commands.add_parser(name)
        command.add_argument("what")
        command.add_argument("--device", default="auto")
        command.add_argument("--sandbox", default="auto")
        command.add_argument("--ray")
        command.add_argument("--seed", type=int, default=0)
        command.add_argument("--json", action="store_true")
        command.add_argument("--events", action="store_true")
        command.add_argument("--against")
        command.add_argument("--protocol")
        command.add_argument("--form", default="naive")
        command.add_argument("--seeds", type=int, default=1)
        command.add_argument("--task", action="append")
        command.add_argument("--only", action="append")
        command.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.device == "cuda":
        print("--device cuda: torch sees no CUDA GPU on this machine", file=sys.stderr)
        return 3
    if args.ray == "nobody:1":
        print("--ray nobody:1: no Ray cluster answers there", file=sys.stderr)
        return 3
    try:
        return {"protocol": protocol, "check": check, "score": score, "part": part}[args.command](args)
    except OSError as error:  # as the evaluator does
        print(error, file=sys.stderr)
        return 3


def protocol(args: argparse.Namespace) -> int:
    noise = dict.fromkeys(TASKS.values(), SIGMA)
    settings = {f"{task}:baseline": SIGMA for task in TASKS}
    print(json.dumps({
        "name": args.what, "version": 1, "fingerprint": FINGERPRINT[args.what], "noise": noise,
        "setting_noise": settings, "resolution": 0.001,
    }))  # fmt: skip
    return 0


def check(args: argparse.Namespace) -> int:
    path = Path(args.what)
    if not path.exists():
        print(f"{path} does not exist", file=sys.stderr)
        return 2
    marks = _marks(path, Path(args.against).parent if args.against else path.parents[1])
    if args.against and (Path(args.against).parent / "hang-gates").exists():
        time.sleep(600)
    if "gates-environment" in marks:
        print("[Errno 28] No space left on device", file=sys.stderr)
        return 3
    if "check-crash" in marks:
        os.kill(os.getpid(), 9)
    against = ("reject", "duplicate") if args.against else ("reject",)
    verdict = next((word for word in against if word in marks), "pass")
    message = "outputs before a cut at 17 change with the inputs after it: \x1b[31mred\x1b[0m" if verdict != "pass" else ""
    gates = [{"name": "parses", "passed": True, "message": "", "seconds": 0.01},
             {"name": "causal", "passed": verdict == "pass", "message": message, "seconds": 0.2}]
    print(json.dumps({"variant": path.name, "verdict": verdict, "flags": [], "gates": gates,
                      "properties": {"digest": _digest(path), "duplicate_of": "delta_net" if verdict == "duplicate" else None}}))
    return 0 if verdict == "pass" else 1


def score(args: argparse.Namespace) -> int:
    path, out = Path(args.what), args.out
    marks = _marks(path, path.parents[1])
    args.digest = _digest(path)  # of what is trained, whatever becomes of the file meanwhile
    print(f"training {path.name}", file=sys.stderr)
    if "environ" in marks:
        (out / "environ.json").write_text(json.dumps(dict(os.environ)))
    if "hang" in marks or (path.parents[1] / "hang").exists():
        time.sleep(600)
    if "crash" in marks:
        raise RuntimeError("a bug in the evaluator")
    if "environment" in marks:
        print("[Errno 28] No space left on device", file=sys.stderr)
        return 3
    return _train(args, path, out, marks)


def part(args: argparse.Namespace) -> int:
    """`fast` has the settings of `mad` here."""
    whole = json.loads((Path(args.what) / "evaluation.json").read_text())
    if (whole["protocol"]["name"], args.protocol) != ("mad", "fast"):
        print(f"evaluator: {args.what}: its protocol, {whole['protocol']['name']}, trains otherwise than {args.protocol}", file=sys.stderr)
        return 2
    told = {"protocol": whole["protocol"] | {"name": "fast"}, "fingerprint": FINGERPRINT["fast"]}
    (args.out / "evaluation.json").write_text(json.dumps(whole | told))
    (args.out / "runs.csv").write_text((Path(args.what) / "runs.csv").read_text())
    return 0


def _train(args: argparse.Namespace, path: Path, out: Path, marks: dict[str, str]) -> int:
    done = _rows(out)
    tasks = args.task or list(TASKS)
    if "partial" in marks:
        tasks = tasks[:2]
    for number, task in enumerate(tasks):
        if task in done:
            continue
        time.sleep(float(marks.get("slow", 0)))
        done[task] = _accuracy(path, task, args, marks)
        _append(out, task, args, done[task])
        if args.events:
            print(json.dumps({"event": "progress", "task": task, "setting": "baseline", "settings_done": number,
                              "settings_total": 6, "step": 10, "steps": 20, "accuracy": done[task],
                              "steps_per_second": 100.0, "seconds_left": 1}), flush=True)
            print(json.dumps({"event": "setting", "task": task, "setting": "baseline", "accuracy": done[task],
                              "seconds": 0.1, "settings_done": number + 1, "settings_total": 6}), flush=True)
    status = next((word for word in ("train-failed", "audit-failed") if word in marks), "")
    _evaluation(args, path, out, done, status)
    return 1 if status else 0


def _accuracy(path: Path, task: str, args: argparse.Namespace, marks: dict[str, str]) -> float:
    if "score" in marks:
        return float(marks["score"])
    digest = hashlib.sha256(f"{args.digest} {task} {args.seed}".encode()).digest()
    return round(0.3 + digest[0] / 2550, 6)


def _rows(out: Path) -> dict[str, float]:
    file = out / "runs.csv"
    text = file.read_text() if file.exists() else ""
    whole = text[: text.rfind("\n") + 1].splitlines()
    return {row["task"]: float(row["accuracy"]) for row in csv.DictReader(whole) if row["audited"] == "1"}


def _append(out: Path, task: str, args: argparse.Namespace, accuracy: float) -> None:
    """Every run of the task; the ones with weight decay are half as good, and not audited."""
    file = out / "runs.csv"
    lines = [] if file.exists() else [RUN]
    for setting in SETTINGS:
        for seed in range(args.seed, args.seed + args.seeds):
            lines.append(f"{task},{setting},0.001,0.0,{seed},{accuracy},1.0,3,30.0,1,{accuracy},{accuracy},{accuracy},3,5.0")
            lines.append(f"{task},{setting},0.001,0.1,{seed},{accuracy / 2},2.0,3,30.0,0,{accuracy / 2},{accuracy / 2},nan,3,5.0")
    with open(file, "a") as rows:
        rows.write("\n".join(lines) + "\n")


def _evaluation(args: argparse.Namespace, path: Path, out: Path, done: dict[str, float], failed: str) -> None:
    names = {task: [n for n in SETTINGS if not args.only or f"{task}:{n}" in args.only] for task in done}
    scores = {column: done.get(task) if names.get(task) == SETTINGS else None for task, column in TASKS.items()}
    whole = None not in scores.values()
    tasks = {task: {"accuracy": scores[TASKS[task]], "sweep_mean": 0.75 * value, "settings_done": len(names[task]),
                    "settings_total": len(SETTINGS), "settings": {name: {"accuracy": value, "sweep_mean": 0.75 * value, "seconds": 60.0} for name in names[task]}}
             for task, value in done.items()}
    content = {
        "status": failed or ("scored" if whole else "partial"),
        "error": "loss is NaN in every run of compression" if failed else None,
        "variant": {"name": path.name, "digest": args.digest, "form": args.form},
        "protocol": {"name": args.protocol, **PROTOCOL}, "fingerprint": FINGERPRINT[args.protocol],
        "seeds": list(range(args.seed, args.seed + args.seeds)),
        "device": {"kind": "cpu", "name": "stub"}, "versions": {"python": "3", "torch": None},
        "parameters": {"model": 409872, "baseline": 409872}, "state_size": {}, "sandbox": {"level": "none", "walls": []},
        "tasks": tasks, "scores": scores, "mad_score": sum(scores.values()) / 6 if whole else None,
        "seconds": {"total": 0.6}, "started": datetime.now(UTC).isoformat(), "finished": "2030-01-01T00:00:01+00:00",
    }  # fmt: skip
    part = out / ".evaluation.part"
    part.write_text(json.dumps(content))
    part.replace(out / "evaluation.json")


def _marks(path: Path, root: Path) -> dict[str, str]:
    source = (path / "naive.py" if path.is_dir() else path).read_text()
    found = [line.split("# stub:")[1].strip() for line in source.splitlines() if "# stub:" in line]
    marks = {mark.partition("=")[0]: mark.partition("=")[2] for mark in found}
    mended = ("slow", "environment", "gates-environment") if (root / "mended").exists() else ()
    return {mark: value for mark, value in marks.items() if mark not in mended}


def _digest(path: Path) -> str:
    files = sorted(path.glob("*.py")) if path.is_dir() else [path]
    texts = [(file.name, file.read_bytes()) for file in files]
    return hashlib.sha256(b"".join(f"{name} {len(data)}\n".encode() + data for name, data in texts)).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
