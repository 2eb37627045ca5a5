"""The evaluator's command line: score, part, check, generate, protocol."""

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evaluator import output
from evaluator.protocol import BASELINES, CHANGEABLE, PROTOCOLS, Setting

if TYPE_CHECKING:
    from evaluator.job import Job

DONE, REJECTED, BAD_INPUT, ENVIRONMENT = 0, 1, 2, 3
MOST_EXAMPLES = 1_000_000  # that `generate` writes to one file


class UsageError(Exception):
    """What was asked for can't be done; one sentence with the value in it."""


class EnvironmentProblem(Exception):
    """This machine lacks what was asked for; one sentence."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit status."""
    args = _parser().parse_args(arguments)
    try:
        _require_a_folder()
        return int(args.command(args))
    except UsageError as error:
        return _fail(error, BAD_INPUT)
    except (FileNotFoundError, NotADirectoryError, FileExistsError, IsADirectoryError, ValueError) as error:
        return _fail(error, BAD_INPUT)
    except (EnvironmentProblem, OSError) as error:
        return _fail(error, ENVIRONMENT)
    except KeyboardInterrupt:
        return 130


def _require_a_folder() -> None:
    try:
        os.getcwd()
    except FileNotFoundError:  # torch can't be loaded there
        raise EnvironmentProblem("the folder that this was started in is gone: start it in one that is there") from None


def _fail(error: Exception, status: int) -> int:
    print(f"evaluator: {error}", file=sys.stderr)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m evaluator", description="Train, score and check a delta-rule operator on MAD.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    score = commands.add_parser("score", help="train and score a variant; goes on where the folder --out left off")
    score.add_argument("variant", type=Path, help="a folder with naive.py (and triton.py), or one .py file")
    score.add_argument("--protocol", default="fast", help=f"one of {', '.join(PROTOCOLS)} (default: fast)")
    score.add_argument("--task", action="append", default=[], help="only this task; may be repeated")
    score.add_argument("--setting", action="append", default=[], metavar="KEY=VALUE", help=f"change the task's first setting; KEY is one of {', '.join(CHANGEABLE)}")
    score.add_argument("--only", action="append", default=[], metavar="TASK:SETTING", help="only this setting, named as evaluation.json names it; may be repeated")
    score.add_argument("--seed", type=int, default=0, help="the first random seed (default: 0)")
    score.add_argument("--seeds", type=int, default=1, metavar="N", help="how many seeds are trained side by side (default: 1)")
    score.add_argument("--form", choices=("naive", "triton"), help="default: triton on a GPU where there is one, else naive")
    score.add_argument("--out", type=Path, required=True, metavar="DIR", help="takes runs.csv and evaluation.json")
    score.add_argument("--seconds", type=float, metavar="S", help="start no further setting after S seconds; call again to go on")
    _ray_option(score)
    score.add_argument("--events", action="store_true", help="progress as one JSON object a line on stdout")
    _device_options(score)
    score.set_defaults(command=_score)

    part = commands.add_parser("part", help="the part of an evaluation that is one under another protocol, whose settings are some of its own")
    part.add_argument("folder", type=Path, metavar="DIR", help="an evaluation: runs.csv and evaluation.json")
    part.add_argument("--protocol", default="fast", help=f"one of {', '.join(PROTOCOLS)} (default: fast)")
    part.add_argument("--out", type=Path, required=True, metavar="DIR", help="takes the part: an empty or a new folder")
    part.set_defaults(command=_part)

    check = commands.add_parser("check", help="the gates alone, without training")
    check.add_argument("variant", type=Path, help="a folder with naive.py (and triton.py), or one .py file")
    check.add_argument("--json", action="store_true", help="one JSON document on stdout")
    check.add_argument("--against", type=Path, metavar="DIR", help="stored variants, to tell duplicates")
    check.add_argument("--seed", type=int, help="of the gates' random inputs (default: fresh)")
    _device_options(check)
    check.set_defaults(command=_check)

    generate = commands.add_parser("generate", help="write examples of a task to an .npz file")
    generate.add_argument("task", help=f"one of {', '.join(BASELINES)}")
    generate.add_argument("--setting", action="append", default=[], metavar="KEY=VALUE", help=f"change the task's baseline; KEY is one of {', '.join(CHANGEABLE)}")
    generate.add_argument("--split", choices=("train", "test"), default="train")
    generate.add_argument("--num-examples", type=int, help="default: as many as the setting has")
    generate.add_argument("--seed", type=int, default=0)
    generate.add_argument("--out", type=Path, required=True, metavar="FILE.npz", help="takes the integer arrays inputs and targets")
    generate.set_defaults(command=_generate)

    protocol = commands.add_parser("protocol", help="print a protocol, its fingerprint and its noise as JSON")
    protocol.add_argument("name", help=f"one of {', '.join(PROTOCOLS)}")
    _ray_option(protocol)
    _device_options(protocol)  # with them it also says whether this machine has what a run would need
    protocol.set_defaults(command=_protocol)
    return parser


def _ray_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ray", metavar="WHERE", help="spread the settings over GPUs: local (all of this machine), auto (the Ray cluster it is part of) or HOST:PORT")


def _device_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: the GPU where there is one")
    parser.add_argument("--sandbox", choices=("require", "auto", "off"), default="auto", help="walls around the variant's code (default: auto)")


def _device(wanted: str, ray: str | None = None) -> Any:
    import torch

    if ray:
        from evaluator import cluster

        return cluster.device(wanted)
    if wanted == "cuda" and not torch.cuda.is_available():
        raise EnvironmentProblem("--device cuda: torch sees no CUDA GPU on this machine")
    found = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(found if wanted == "auto" else wanted)


@contextlib.contextmanager
def _joined(address: str | None) -> Iterator[None]:
    """Part of a Ray cluster where one was asked for."""
    if not address:
        yield
        return
    from evaluator import cluster

    try:
        with cluster.joined(address):
            yield
    except (cluster.ClusterError, cluster.UnequalMachines) as error:
        raise EnvironmentProblem(str(error)) from None


def _reachable(address: str) -> None:
    from evaluator import cluster

    try:
        cluster.reachable(address)
    except cluster.ClusterError as error:
        raise EnvironmentProblem(str(error)) from None


def _walls(mode: str) -> Any:
    from evaluator import sandbox

    try:
        return sandbox.choose(mode)
    except sandbox.SandboxError as error:
        raise EnvironmentProblem(str(error)) from None


def _changes(given: Sequence[str]) -> dict[str, float]:
    changes: dict[str, float] = {}
    for text in given:
        key, _, value = text.partition("=")
        if key not in CHANGEABLE:
            raise UsageError(f"--setting {text}: the key is one of {', '.join(CHANGEABLE)}")
        try:
            changes[key] = float(value) if key == "frac_noise" else int(value)
        except ValueError:
            raise UsageError(f"--setting {text}: {value!r} is no number") from None
    return changes


def _only(settings: Sequence[Setting], names: Sequence[str]) -> Sequence[Setting]:
    """The settings named as TASK:SETTING, all of them where none is named."""
    known = {f"{s.task}:{s.name}": s for s in settings}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UsageError(f"--only {unknown[0]}: there is no such setting; there are {', '.join(known)}")
    return [known[name] for name in dict.fromkeys(names)] or settings


def _score(args: argparse.Namespace) -> int:
    from evaluator import job as jobs
    from evaluator import tasks

    if args.seeds < 1 or not 0 <= args.seed < 1 << 31:
        raise UsageError(f"--seeds {args.seeds} --seed {args.seed}: at least one seed, from 0 to {(1 << 31) - 1}")
    protocol, settings = jobs.choose_settings(jobs.protocol_named(args.protocol), args.task, _changes(args.setting))
    settings = tuple(_only(settings, args.only))
    for setting in settings:
        tasks.check(setting)
    args.out.mkdir(parents=True, exist_ok=True)
    seeds = range(args.seed, args.seed + args.seeds)
    walls = _walls(args.sandbox)
    with _joined(args.ray):
        device = _device(args.device, args.ray)
        if args.form == "triton" and device.type == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
            raise EnvironmentProblem(f"{args.variant} --form triton: a Triton operator is trained on a CUDA GPU, and this would be a CPU")
        job = jobs.make_job(args.variant, protocol, settings, seeds, device, walls, args.out, args.form, args.seconds)
        evaluation = _scored(job, args)
    if not args.events:
        output.print_evaluation(evaluation)
    return DONE if evaluation["status"] in ("scored", "partial") else REJECTED


def _scored(job: "Job", args: argparse.Namespace) -> dict[str, Any]:
    from evaluator import local, results, score

    place: score.Place = local
    try:
        if args.ray:
            from evaluator import cluster

            place = cluster.Cluster(job)
        return score.score(job, output.print_event if args.events else output.print_line, place)
    except results.ResultsError as error:
        raise UsageError(str(error)) from None


def _part(args: argparse.Namespace) -> int:
    from evaluator import evaluation, job, results

    protocol = job.protocol_named(args.protocol)
    args.out.mkdir(parents=True, exist_ok=True)
    if any(args.out.iterdir()):
        raise UsageError(f"--out {args.out}: it holds something already")
    try:
        output.print_evaluation(evaluation.part(args.folder, protocol, args.out))
    except results.ResultsError as error:
        raise UsageError(str(error)) from None
    return DONE


def _check(args: argparse.Namespace) -> int:
    from evaluator import check

    verdict = check.check(args.variant, against=args.against, walls=_walls(args.sandbox), device=_device(args.device), seed=args.seed)
    print(json.dumps(verdict.to_json()) if args.json else verdict.text())
    return DONE if verdict.passed else REJECTED


def _generate(args: argparse.Namespace) -> int:
    import dataclasses

    from evaluator import tasks

    if args.task not in BASELINES:
        raise UsageError(f"unknown task {args.task}: the tasks are {', '.join(BASELINES)}")
    if not 0 <= args.seed < 1 << 31:
        raise UsageError(f"--seed {args.seed}: from 0 to {(1 << 31) - 1}")
    if args.num_examples is not None and not 1 <= args.num_examples <= MOST_EXAMPLES:
        raise UsageError(f"--num-examples {args.num_examples}: from 1 to {MOST_EXAMPLES}")
    changes: dict[str, Any] = _changes(args.setting)
    if args.num_examples is not None:
        changes[f"num_{args.split}_examples"] = args.num_examples
    train, test = tasks.generate(dataclasses.replace(BASELINES[args.task], **changes), args.seed)
    chosen = train if args.split == "train" else test
    with args.out.open("wb") as file:
        np.savez_compressed(file, inputs=chosen.inputs, targets=chosen.targets)
    print(f"{args.out}: {len(chosen.inputs)} examples of {args.task}, inputs and targets {list(chosen.inputs.shape)}")
    return DONE


def _protocol(args: argparse.Namespace) -> int:
    from evaluator import job as jobs
    from evaluator import noise, results

    protocol = jobs.protocol_named(args.name)
    if args.ray:
        _reachable(args.ray)
    if args.device != "auto" and args.ray in (None, "local"):
        _device(args.device)
    if args.sandbox != "auto":
        _walls(args.sandbox)
    content = {
        "name": protocol.name, "version": protocol.version, "fingerprint": results.fingerprint(protocol),
        "settings": len(protocol.settings), "noise": noise.sigmas(protocol),
        "setting_noise": noise.of_settings(protocol), "resolution": 1 - protocol.stop_accuracy,
    }
    print(json.dumps(content))
    return DONE


if __name__ == "__main__":
    sys.exit(main())
