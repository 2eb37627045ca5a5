"""What is printed of an evaluation: progress as it goes, the scores at its end."""

import json
import sys
from typing import Any


def print_event(event: dict[str, Any]) -> None:
    """Progress as one JSON object a line, for a program; in one write, as several threads tell."""
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def print_line(event: dict[str, Any]) -> None:
    """Progress for a person, on stderr."""
    match event["event"]:
        case "note":
            print(event["message"], file=sys.stderr)
        case "setting":
            accuracy = "failed" if event["accuracy"] is None else f"{event['accuracy']:.4f}"
            print(f"[{event['settings_done']}/{event['settings_total']}] {event['task']} {event['setting']}: {accuracy} in {event['seconds']} s", file=sys.stderr)
        case "progress" if sys.stderr.isatty():
            accuracy = "-" if event["accuracy"] is None else f"{event['accuracy']:.3f}"
            left = "" if event["seconds_left"] is None else f", at most {event['seconds_left']} s left"
            print(f"  {event['task']} {event['setting']}: step {event['step']}/{event['steps']}, accuracy {accuracy}, {event['steps_per_second']} steps/s{left}\033[K", end="\r", file=sys.stderr)


def print_evaluation(evaluation: dict[str, Any]) -> None:
    """The six columns and the whole."""
    for column, value in evaluation["scores"].items():
        print(f"{column:15s} {'-' if value is None else format(value, '.4f')}")
    whole = evaluation["mad_score"]
    named = "MAD score" if evaluation["protocol"]["name"] == "mad" else "mean of six (no MAD score)"
    print(f"{named}: {'-' if whole is None else format(whole, '.4f')}  [{evaluation['status']}]")
    if evaluation["error"]:
        print(evaluation["error"], file=sys.stderr)
