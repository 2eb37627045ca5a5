"""The command line: `agent run`, `list`, `show`, `replay`, `score`, `check`, `import`."""

import sys
from contextlib import closing
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import typer

from . import history, listing, loop, options, show, trial, variants
from . import replay as replaying
from .checking import check_report, variant_meant
from .earlier.importer import Imported, import_files
from .ending import Sentences
from .errors import BadInput, Rejected
from .evaluate import EvaluationFailed
from .history import Entry, Past
from .output import console, print_done, print_json, print_replay, say, say_empty, tell, without_a_score
from .settings import Settings, load, unknown_variables
from .setup import evaluator_for, existing, job_for, proposer_for, repo_for
from .text import printable

app = typer.Typer(
    cls=Sentences,
    add_completion=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Search for better delta-rule operators: propose, patch, check, train, score, reflect, record.",
)

_HERE = Path()


def main() -> None:
    """Read the command line and do what it says."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a terminal that is not UTF-8 shows a question mark, no traceback
            stream.reconfigure(errors="replace")
    app(prog_name="agent")


@app.command()
def run(
    iterations: options.Iterations = None,
    parallel: options.Parallel = None,
    protocol: options.Protocol = None,
    proposer: options.Proposer = None,
    model: options.Model = None,
    base_url: options.BaseUrl = None,
    tries: options.Tries = None,
    device: options.Device = None,
    ray: options.Ray = None,
    seed: options.Seed = None,
    sandbox: options.Sandbox = None,
    no_commit: options.NoCommit = False,
    root: options.Root = _HERE,
) -> None:
    """Make new attempts: propose, check, train, score, reflect, record.

    Where the baseline delta_net has no whole score under the protocol yet, it is scored first. Ctrl-C ends
    cleanly; what was under way is taken up by the next run, where its reply had come. Exit status 1: no attempt got a
    score. A model's key is read from OPENAI_API_KEY, its server's address also from OPENAI_BASE_URL.
    """
    settings = _settings(
        root,
        {
            "iterations": iterations, "parallel": parallel, "protocol": protocol, "proposer": proposer, "model": model,
            "base_url": base_url, "tries": tries, "device": device, "ray": ray, "seed": seed, "sandbox": sandbox,
            "commit": False if no_commit else None,
        },
    )  # fmt: skip
    done: list[Entry] = []
    out = console()
    with job_for(root, settings, out) as job:
        job = proposer_for(job, settings)
        try:
            with closing(loop.run(job, settings.iterations)) as ended:
                for entry in ended:
                    done.append(entry)
        finally:
            job.reporter.rest()
            print_done(out, root, done)
    if settings.iterations and (sentence := without_a_score(done)):
        raise Rejected(sentence)


@app.command("list")
def list_(
    json_: options.Json = False,
    csv: options.Csv = False,
    at: options.At = None,
    protocol: options.OnlyProtocol = None,
    root: options.Root = _HERE,
) -> None:
    """Every attempt: status, six task scores, MAD score, parent.

    `1/11` stands for a task of which one setting out of eleven is done. Imported rows show each distinct name
    and values once; they were not measured here.
    """
    if json_ and csv:
        raise BadInput("--json and --csv: choose one of them")
    past = _past(root, at)
    if not past.entries:
        say_empty(root, past)
    past = past if at is None else past.until(at)
    found = listing.rows(past)
    rows = [row for row in found if protocol in (None, row.protocol)]
    if json_:
        print_json([row.as_json() for row in rows])
    elif csv:
        text, notes = listing.csv_table(found, protocol)
        typer.echo(printable(text), nl=False)
        tell(notes)
    elif rows:
        out = console()
        out.print(listing.table(rows, out.width))
    elif found:
        say(f"nothing was tried under {protocol} yet; {len(found)} row(s) of other protocols are left out")


@app.command("show")
def show_(
    entry_id: options.Id,
    json_: options.Json = False,
    log: options.Log = False,
    root: options.Root = _HERE,
) -> None:
    """One attempt in full: proposal, scores, insight, change, files.

    Scores stand beside the parent's, where none was scored beside the baseline's; `noise` is two sigma of a
    difference between two scores. Of a row that is not whole the settings that are done are listed.
    """
    if json_ and log:
        raise BadInput("--json prints the entry and --log its training log: give one of them")
    past = _past(root, entry_id)
    entry = past.find(entry_id)
    if json_:
        print_json(show.as_json(entry, past))
    elif log:
        show.log(entry, console())
    else:
        console().print(show.in_full(entry, past, root))


@app.command()
def replay(
    entry_id: options.Id,
    only: options.Only = None,
    out: options.Out = None,
    record: options.RecordIt = False,
    json_: options.Json = False,
    device: options.Device = None,
    ray: options.Ray = None,
    sandbox: options.Sandbox = None,
    no_commit: options.NoCommit = False,
    root: options.Root = _HERE,
) -> None:
    """Train a stored variant again: is the result the same?

    Same means bit for bit on the device and versions of the record. On others each task is held to three sigma
    of its noise over seeds, and of a partial row each setting. A variant that was edited since is taken from the
    commit that holds what was scored. Exit status 1: it is not the same, or moved where no noise was measured.
    No record is changed.
    """
    entry = _past(root, entry_id).find(entry_id)
    recorded, keys = replaying.recorded_evaluation(entry), replaying.chosen(entry, only or [])
    settings = _settings(
        root,
        {
            "protocol": recorded.protocol.name,
            "seed": recorded.seeds[0],
            "device": device,
            "ray": ray,
            "sandbox": sandbox,
            "commit": False if no_commit or not record else None,
        },
    )
    with job_for(root, settings, console(err=json_)) as job:
        done = replaying.replay(job, entry, only=keys, out=out, keep=record)
    if json_:
        print_json(done.as_json())
    else:
        print_replay(done)
    if done.unrecorded:
        typer.echo(f"agent: {printable(done.unrecorded)}", err=True)
    raise typer.Exit(3 if done.unrecorded else 0 if done.agrees else 1)


@app.command()
def score(
    name: options.Name,
    protocol: options.Protocol = None,
    from_: options.From = None,
    json_: options.Json = False,
    device: options.Device = None,
    ray: options.Ray = None,
    seed: options.Seed = None,
    sandbox: options.Sandbox = None,
    no_commit: options.NoCommit = False,
    root: options.Root = _HERE,
) -> None:
    """Check, train and score a variant written by hand.

    It becomes an attempt of its own, beside its parent or the baseline delta_net; in a git checkout the source is
    committed with it. Exit status 1: it got no score.
    """
    settings = _settings(
        root,
        {
            "protocol": protocol,
            "device": device,
            "ray": ray,
            "seed": seed,
            "sandbox": sandbox,
            "commit": False if no_commit else None,
        },
    )
    name = variants.named(root, name)
    with job_for(root, settings, console(err=json_)) as job:
        entry = trial.score_from(job, name, from_) if from_ else loop.score_stored(job, name)
    if json_:
        print_json(show.as_json(entry, history.read(root)))
    else:
        print_done(console(), root, [entry], in_full=True)
    raise typer.Exit(0 if entry.status == "scored" else 1)


@app.command()
def check(
    variant: options.Variant,
    json_: options.Json = False,
    device: options.AskedOn = None,
    seed: options.GateSeed = None,
    sandbox: options.Sandbox = None,
    root: options.Root = _HERE,
) -> None:
    """The gates alone, in seconds, without training.

    Exit status 1: rejected.
    """
    settings = _settings(root, {"device": device, "sandbox": sandbox})
    with variant_meant(variant, root, say) as path:
        try:
            report = evaluator_for(settings).check(path, against=_stored(root), seed=seed)
        except EvaluationFailed as error:
            raise BadInput(f"{path} could not be checked: {error}") from error
    if json_:
        print_json(report.model_dump(mode="json"))
    else:
        console().print(check_report(report))
    raise typer.Exit(0 if report.verdict == "pass" else 1)


@app.command("import", epilog=options.RECORD_FORM)
def import_(
    files: options.Files,
    json_: options.Json = False,
    no_commit: options.NoCommit = False,
    root: options.Root = _HERE,
) -> None:
    """Turn the text records of an earlier project into entries.

    One entry a file, kept verbatim, marked as imported and never ranked as measured. What is missing or odd
    in a record is told. Exit status 2: a file could not be read as a record.
    """
    settings = _settings(root, {"commit": False if no_commit else None})
    done: list[Imported] = []
    for imported in import_files(root, files, repo_for(root, settings, say), say):
        done.append(imported)
        if not json_:
            typer.echo(printable(imported.sentence))
    if json_:
        print_json([imported.__dict__ for imported in done])
    raise typer.Exit(2 if any(imported.id is None for imported in done) else 0)


def _settings(root: Path, flags: dict[str, Any]) -> Settings:
    tell(unknown_variables())
    return load(existing(root), flags)


def _stored(root: Path) -> Path | None:
    folder = root / "variants"
    return folder if folder.is_dir() else None


def _past(root: Path, asked: str | None = None) -> Past:
    """The history; what is wrong with it is told, but for an entry that is asked for: refusing it tells that."""
    past = history.read(existing(root))
    tell([problem for problem in past.problems if problem != past.refused(asked)])
    return past
