"""The options and arguments of the command line, each with the words that `--help` shows."""

from pathlib import Path
from typing import Annotated, Literal

import typer


def _path(text: str | Path) -> Path:
    if not str(text):
        raise typer.BadParameter("an empty path")
    return Path(text)


def _seed(text: str | int) -> int:
    if not str(text).isascii() or not str(text).isdigit() or int(text) >= 1 << 63:
        raise typer.BadParameter("it must be a whole number from 0 to 2^63 - 1")
    return int(text)


Root = Annotated[
    Path, typer.Option("--root", parser=_path, metavar="DIR", help="The folder with history/, variants/, prompts/.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else.")]
Protocol = Annotated[
    Literal["smoke", "fast", "mad"] | None,
    typer.Option(
        "--protocol",
        help="What to train: smoke (a minute, no measure of quality), fast, mad (all 66 settings). [smoke]",
    ),
]
Device = Annotated[
    Literal["auto", "cpu", "cuda"] | None, typer.Option("--device", help="Where to train. [auto]")
]
AskedOn = Annotated[
    Literal["auto", "cpu", "cuda"] | None, typer.Option("--device", help="Where a Triton form is asked, too. [auto]")
]
Ray = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="WHERE",
        help="Spread each evaluation over GPUs: local (all of this machine), auto (the Ray cluster it is part "
        "of) or HOST:PORT.",
    ),
]
Sandbox = Annotated[
    Literal["require", "auto", "off"] | None,
    typer.Option(
        "--sandbox", help="Walls around variants: all of them, those this machine has, or none. [auto]"
    ),
]
Seed = Annotated[
    int | None, typer.Option("--seed", metavar="S", help="The random seed of data, weights and choices. [0]")
]
NoCommit = Annotated[bool, typer.Option("--no-commit", help="Leave git alone.")]
Id = Annotated[str, typer.Argument(metavar="ID", help="An entry, as `agent list` names it.")]
Iterations = Annotated[
    int | None,
    typer.Option("--iterations", metavar="N", help="How many proposals; 0 only finishes what was interrupted, and the baseline. [1]"),
]
Parallel = Annotated[
    int | None,
    typer.Option(
        "--parallel",
        metavar="N",
        help="How many attempts at once, each with a GPU or a part of the cores of its own. [1]",
    ),
]
Proposer = Annotated[
    Literal["openai", "catalogue", "manual"] | None,
    typer.Option(
        "--proposer",
        help="A model, the built-in catalogue (no model), or you. [openai with a key or --base-url, "
        "else catalogue]",
    ),
]
Model = Annotated[
    str | None, typer.Option("--model", metavar="M", help="The model's name, as its server has it.")
]
BaseUrl = Annotated[
    str | None,
    typer.Option(
        "--base-url",
        metavar="U",
        help="A server that speaks OpenAI's chat.completions, as http://localhost:8000/v1.",
    ),
]
Tries = Annotated[
    int | None, typer.Option("--tries", metavar="N", help="Replies per attempt before it has failed. [3]")
]
Csv = Annotated[bool, typer.Option("--csv", help="The results table: name and six columns, one fingerprint.")]
At = Annotated[str | None, typer.Option("--at", metavar="ID", help="As the history stood with that entry.")]
OnlyProtocol = Annotated[
    Literal["smoke", "fast", "mad"] | None,
    typer.Option("--protocol", metavar="P", help="Only what was scored under it.")
]
Log = Annotated[bool, typer.Option("--log", help="Print the training log.")]
RecordIt = Annotated[
    bool, typer.Option("--record", help="Add the result to the history, as an entry of kind replay.")
]
Only = Annotated[
    list[str] | None,
    typer.Option("--only", metavar="TASK:SETTING", help="Only this of the recorded settings; may be repeated."),
]
Out = Annotated[
    Path | None,
    typer.Option("--out", parser=_path, metavar="DIR", help="Keep the runs there; called again, go on where it was cut off."),
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="A folder in variants/, by its name or its path.")]
From = Annotated[
    Path | None,
    typer.Option(
        "--from",
        parser=_path,
        metavar="DIR",
        help="Record what `python -m evaluator score --out DIR` measured elsewhere; a mad evaluation has one of fast in it.",
    ),
]
Variant = Annotated[
    str, typer.Argument(metavar="PATH|ID", help="A variant's folder, one .py file, or an entry.")
]
Files = Annotated[
    list[Path],
    typer.Argument(parser=_path, metavar="FILE...", help="Text records: score table, insights, name, success."),
]
GateSeed = Annotated[
    int | None, typer.Option("--seed", parser=_seed, metavar="S", help="Of the gates' random inputs. [fresh]")
]
RECORD_FORM = """\b
A record, of which any part may be missing:
\b
                  Compress  Context Recall  Fuzzy Recall  Memorize  ...
  0    delta_net      0.48            0.99          0.19      0.34  ...
  1  wider_state      0.51            0.99          0.21      0.36  ...
\b
  20250618_093000
\b
  --- Insights ---
  What was learned, in any words.
\b
  Name
  wider_state
\b
  Success
  true

Columns stand between blanks, tabs, commas, semicolons or bars, or a task has
a line of its own, under no title or one such as 'Results'; the tasks in any
spelling, scores from 0 to 1 or with a percent sign. One record a file."""
"""What `agent import --help` shows of the files it takes."""
