"""The command line, as it is typed: what it prints, where, and with which exit status."""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Sequence
from io import StringIO
from pathlib import Path

import pytest
from conftest import BASELINE, PROJECT, git, made_elsewhere, remeasured, reply, store
from pytest_httpserver import HTTPServer
from rich.console import Console
from typer.testing import CliRunner, Result
from werkzeug import Request, Response

from agent import history, listing, show, variants
from agent.cli import app
from agent.compare import Comparison
from agent.insight import in_short
from agent.output import console
from agent.records import COLUMN_OF, COLUMNS

KEY = "sk-not-to-be-seen-42"


def agent(root: Path, *arguments: str, **environ: str) -> Result:
    return CliRunner().invoke(app, [*arguments, "--root", str(root)], env=environ, catch_exceptions=False)


def document(done: Result) -> object:
    """The one JSON document on stdout."""
    return json.loads(done.stdout)


@pytest.fixture
def scored(root: Path) -> Path:
    """A root with its baseline scored."""
    assert agent(root, "score", "delta_net").exit_code == 0
    return root


def serve(server: HTTPServer, replies: Sequence[str]) -> None:
    left = list(replies)

    def answer(request: Request) -> Response:
        asked = request.get_json()["messages"][-1]["content"]
        text = "A lesson.\n" if "Write the insight" in asked else left.pop(0)
        return Response(json.dumps({"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}))

    server.expect_request("/v1/chat/completions").respond_with_handler(answer)


def test_the_source_that_was_scored_is_meant_by_an_entry(checkout: Path) -> None:
    shutil.copytree(checkout / "variants" / "delta_net", checkout / "variants" / "mine")
    source = checkout / "variants" / "mine" / "naive.py"
    source.write_text(source.read_text() + "# mine\n")
    first = agent(checkout, "score", "mine")
    assert "0000: neither a parent nor delta_net has a score under smoke to compare with: `agent score delta_net --protocol smoke` makes one" in first.output
    source.write_text(source.read_text() + "# stub: reject\n")
    assert agent(checkout, "check", "mine").exit_code == 1
    checked = agent(checkout, "check", "0000")
    assert (checked.exit_code, "that one is taken from commit " in checked.stderr) == (0, True)
    assert "variants/mine: edited since; what was scored is in commit " in agent(checkout, "show", "0000").stdout.replace("\n", " ")
    shutil.rmtree(checkout / "variants" / "mine")
    assert agent(checkout, "check", "0000").exit_code == 0
    assert "variants/mine: no longer there; what was scored is in commit " in agent(checkout, "show", "0000").stdout.replace("\n", " ")


def test_a_run_scores_the_baseline_first_beside_another_score(checkout: Path) -> None:
    shutil.copytree(checkout / "variants" / "delta_net", checkout / "variants" / "mine")
    source = checkout / "variants" / "mine" / "naive.py"
    source.write_text(source.read_text() + "# mine\n")
    assert agent(checkout, "score", "mine").exit_code == 0
    done = agent(checkout, "run", "--iterations", "1", "--proposer", "catalogue")
    assert "No score of the baseline delta_net under smoke yet: it comes first, as an extra pass" in done.output
    assert [entry.name for entry in history.read(checkout).entries[:2]] == ["mine", "delta_net"]


def test_three_entries_from_a_server_one_after_a_repair(checkout: Path, httpserver: HTTPServer) -> None:
    serve(httpserver, [reply("one"), reply("two", mark="reject"), reply("two"), reply("three", mark="environ")])
    done = agent(
        checkout, "run", "--iterations", "3", "--proposer", "openai", "--model", "scripted",
        "--base-url", httpserver.url_for("/v1"), OPENAI_API_KEY=KEY, HF_TOKEN="hf-secret")  # fmt: skip
    assert done.exit_code == 0, done.stderr
    assert "0003" in done.stdout
    assert "Traceback" not in done.stderr
    rows = document(agent(checkout, "list", "--json"))
    assert isinstance(rows, list)
    assert [(row["id"], row["name"], row["status"]) for row in rows] == [
        ("0000", "delta_net", "scored"), ("0001", "one", "scored"), ("0002", "two", "scored"),
        ("0003", "three", "scored")]  # fmt: skip
    assert rows[1]["proposer"] == "openai"
    assert len(git(checkout, "log", "--format=%s").splitlines()) == 5
    everything = b"".join(path.read_bytes() for path in checkout.rglob("*") if path.is_file())
    assert KEY.encode() not in everything
    assert b"hf-secret" not in everything
    assert KEY not in done.stdout + done.stderr


def test_without_a_key_the_catalogue_proposes(root: Path) -> None:
    store(root, "other", BASELINE)
    source = Path(__file__).parent.parent / "variants" / "delta_net" / "naive.py"
    (root / "variants" / "delta_net" / "naive.py").write_text(source.read_text())
    done = agent(root, "run", "--iterations", "2")
    assert done.exit_code == 0, done.stderr
    assert "proposer=catalogue" in done.stdout
    rows = document(agent(root, "list", "--json"))
    assert isinstance(rows, list)
    assert [row["proposer"] for row in rows] == [None, "catalogue", "catalogue"]
    assert all(row["success"] for row in rows)


def test_a_run_that_no_server_answers_ends_with_a_sentence(root: Path, httpserver: HTTPServer) -> None:
    httpserver.expect_request("/v1/chat/completions").respond_with_data("busy", status=500)
    done = agent(root, "run", "--base-url", httpserver.url_for("/v1"), AGENT_RETRIES="1")
    assert done.exit_code == 3
    assert "answered with status 500" in done.stderr.splitlines()[-1]
    assert "busy; trying again in 0.5 s (1 of 1)\n" in done.stdout
    assert document(agent(root, "list", "--json"))[1]["status"] == "reply-failed"  # type: ignore[index]


@pytest.mark.parametrize(
    ("replies", "status", "told"),
    [
        (["no proposal", reply("bad", mark="train-failed")], 1, "agent: none of the 2 attempts got a score: 1 reply-failed, 1 train-failed"),
        (["no proposal"], 1, "agent: the attempt got no score: reply-failed"),
        (["no proposal", reply("good")], 0, ""),
        ([], 0, ""),
    ],
)
def test_a_run_that_brought_no_score_ends_with_1(scored: Path, httpserver: HTTPServer, replies: list[str], status: int, told: str) -> None:
    serve(httpserver, replies)
    url = httpserver.url_for("/v1")
    done = agent(scored, "run", "--iterations", f"{len(replies)}", "--tries", "1", "--model", "m", "--base-url", url)
    assert (done.exit_code, done.stderr.strip()) == (status, told)


def test_the_lists(scored: Path) -> None:
    (row,) = document(agent(scored, "list", "--json"))  # type: ignore[misc]
    assert {"id", "name", "kind", "status", "success", "versus_parent", "parent", "proposer", "protocol", "scores"} <= set(row)
    assert tuple(row["scores"]) == COLUMNS
    assert agent(scored, "list", "--csv").stdout.splitlines()[0] == "name," + ",".join(COLUMNS)
    assert agent(scored, "list", "--csv").stdout.splitlines()[1].startswith("delta_net,0.")
    assert "delta_net" in agent(scored, "list").stdout
    assert document(agent(scored, "list", "--json", "--at", "0000")) == [row]
    assert agent(scored, "list", "--at", "0007").exit_code == 2


def test_a_list_is_asked_for_in_one_way_and_of_a_protocol_that_exists(scored: Path) -> None:
    assert document(agent(scored, "list", "--json", "--protocol", "mad")) == []
    assert agent(scored, "list", "--protocol", "zzz").exit_code == 2
    done = agent(scored, "list", "--json", "--csv")
    assert done.exit_code == 2
    assert "choose one" in document(done)["error"]  # type: ignore[index]


@pytest.mark.parametrize(
    "arguments", [["list", "--bogus"], ["show"], ["run", "--seed", "x"], ["list", "--protocol", "zzz"], ["nothing"]]
)
def test_a_usage_error_is_json_where_json_was_asked_for(root: Path, arguments: list[str]) -> None:
    plain = agent(root, *arguments)
    assert (plain.exit_code, plain.stdout) == (2, "")
    done = agent(root, *arguments, "--json")
    assert done.exit_code == 2
    assert set(document(done)) == {"error"}  # type: ignore[call-overload]
    assert "Usage: " in done.stderr


def partial(root: Path, entry: str, *left_out: str) -> dict[str, dict[str, object]]:
    """Makes that entry a row of which these TASK:SETTING are not done; its tasks."""
    earlier = [{"device": {"kind": "cuda", "name": name}, "versions": {}} for name in ("GPU A", "GPU B", "GPU A")]
    return remeasured(root / "history" / entry, left_out=left_out, earlier=earlier)


def test_a_row_that_is_not_whole_shows_what_is_done_and_where(scored: Path) -> None:
    tasks = partial(scored, "0000", "memorization:seq_len=64", "compression:baseline", "compression:seq_len=64")
    (row,) = document(agent(scored, "list", "--json"))  # type: ignore[misc]
    assert (row["settings"], row["settings_done"]) == ("9/12", {"Memorize": "1/2"})
    assert row["devices"] == ["GPU A", "GPU B", "stub"]
    (line,) = [line for line in agent(scored, "list").stdout.splitlines() if "0000" in line]
    assert line.split()[5:9] == ["1/2", *line.split()[6:8], "partial"]
    shown = [line.split() for line in agent(scored, "show", "0000").stdout.splitlines()]
    assert "GPU A, GPU B, stub" in agent(scored, "show", "0000").stdout
    assert ["Memorize", "1/2", "done", "±0.0028"] in shown
    assert ["Compress", "none", "done", "±0.0028"] in shown
    done = [line[:3] for line in shown[shown.index(["Settings", "that", "are", "done"]) + 2 :] if len(line) == 3 and line[0] in COLUMN_OF]
    assert done == [
        [task, name, f"{result['accuracy']:.4f}"]
        for task, found in tasks.items() for name, result in found["settings"].items()  # type: ignore[attr-defined]
    ]  # fmt: skip


def test_a_score_without_a_parent_stands_beside_the_baseline(scored: Path) -> None:
    store(scored, "mine", BASELINE + "# stub: score=0.5\n")
    done = agent(scored, "score", "mine")
    assert done.exit_code == 0
    base = document(agent(scored, "show", "0000", "--json"))["scores"]  # type: ignore[index]
    told = [line.split() for line in done.stdout.splitlines()]
    assert ["task", "score", "delta_net", "difference", "noise", "predicted"] in told
    assert ["Memorize", "0.5000", f"{base['Memorize']:.4f}", f"{0.5 - base['Memorize']:+.4f}", "±0.0028"] in told
    assert f"against delta_net ({'better' if sum(base.values()) < 3 else 'worse'}, noise 0.0012)" in done.stdout
    lesson = (scored / "history" / "0001" / "insight.md").read_text()
    assert f"- Memorize: 0.5000, {0.5 - base['Memorize']:+.4f} against delta_net (above the noise)" in lesson
    row = document(agent(scored, "show", "0001", "--json"))
    assert (row["parent"], row["versus_parent"], row["compared"]["name"]) == (None, "unknown", "delta_net")  # type: ignore[index]
    again = agent(scored, "score", "delta_net").stdout  # the baseline stands beside nothing
    assert ["task", "score", "parent", "difference", "noise", "predicted"] in [line.split() for line in again.splitlines()]


def test_a_part_stands_beside_the_same_settings_of_the_baseline(scored: Path) -> None:
    mine = store(scored, "mine", BASELINE + "# stub: score=0.5\n")
    assert agent(scored, "score", "mine").exit_code == 0
    left = partial(scored, "0001", "memorization:seq_len=64", *(f"{t}:{s}" for t in list(COLUMN_OF)[:3] for s in ("baseline", "seq_len=64")))
    again = agent(scored, "score", str(mine), "--from", str(scored / "history" / "0001"))
    assert (again.exit_code, "0001 is the record of this evaluation already" in again.stderr) == (2, True)
    done = agent(scored, "score", str(mine), "--from", str(made_elsewhere(scored / "history" / "0001", scored / "elsewhere")), "--seed", "3")
    assert done.exit_code == 0, done.stderr
    assert json.loads((scored / "history" / "0002" / "attempt.json").read_text())["seed"] == 0  # what was measured
    base = document(agent(scored, "show", "0000", "--json"))["evaluation"]["tasks"]["memorization"]["settings"]["baseline"]["accuracy"]  # type: ignore[index]
    told = [line.split() for line in done.stdout.splitlines()]
    assert ["memorization", "baseline", "0.5000", f"{base:.4f}", f"{0.5 - base:+.4f}", "±0.0028"] in told
    assert sum(len(found["settings"]) for found in left.values()) == 5  # type: ignore[arg-type]
    assert "0002 mine: scored, 5 of 12 settings, of 5 that delta_net has, too: " in done.stdout
    assert "2 of noise not measured" in done.stdout


def test_the_mean_is_called_a_mad_score_where_it_is_one_in_both_tables(scored: Path) -> None:
    assert agent(scored, "score", "delta_net", "--protocol", "mad").exit_code == 0
    smoke, mad = listing.rows(history.read(scored))
    for width in (80, 200):
        for rows, words in (([smoke], {"mean", "six"}), ([mad], {"MAD", "score"}), ([smoke, mad], {"MAD/", "mean", "six"})):
            out = Console(width=width, file=StringIO())
            out.print(listing.table(rows, width))
            title = out.file.getvalue().partition("0000" if smoke in rows else "0001")[0]  # type: ignore[attr-defined]
            assert words <= set(title.split())
            assert ("MAD" in title) == (mad in rows)


def test_show_prints_what_the_files_say(root: Path) -> None:
    store(root, "child", BASELINE)
    assert agent(root, "score", "delta_net").exit_code == 0
    shown = agent(root, "show", "0000")
    assert shown.exit_code == 0
    assert all(column in shown.stdout for column in COLUMNS)
    assert "mean of six" in shown.stdout
    log = agent(root, "show", "0000", "--log").stdout
    assert "training delta_net" in log  # what the evaluator said on stderr, and each setting as it ended
    assert [line.split("accuracy")[0].split()[2:] for line in log.splitlines() if "accuracy" in line] == [[task, "baseline"] for task in COLUMN_OF]
    assert "step" not in log
    told = document(agent(root, "show", "0000", "--json"))
    assert isinstance(told, dict)
    assert told["evaluation"]["scores"] == told["scores"]


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["show", "0042"], 2, "there is no entry '0042'"),
        (["replay", "0042"], 2, "there is no entry '0042'"),
        (["score", "nothing"], 2, "is no variant"),
        (["score", "../delta_net"], 2, "is not the name of a variant"),
        (["score", "/"], 2, "'/' is not the name of a variant"),
        (["check", "nothing"], 2, "there is no variant 'nothing'"),
        (["show", "delta_net"], 2, "there is no entry 'delta_net'"),
        (["score", "delta_net", "--device", "cuda"], 3, "no CUDA GPU"),
        (["score", "delta_net", "--ray", "nobody:1"], 3, "no Ray cluster answers there"),
        (["run", "--ray", "nobody:1"], 3, "no Ray cluster answers there"),
        (["run", "--model", "m"], 2, "agent: no server to ask for the model 'm': set OPENAI_API_KEY, or give --base-url"),
        (["run", "--iterations", "-1"], 2, "agent: --iterations -1: it must be at least 0\n"),
        (["run", "--parallel", "0"], 2, "agent: --parallel 0: it must be at least 1\n"),
        (["run", "--parallel", "65"], 2, "agent: --parallel 65: it must be at most 64\n"),
        (["run", "--seed", str(2**31)], 2, "agent: --seed 2147483648: it must be less than 2147483648\n"),
        (["run", "--parallel", "2", "--ray", "local"], 2, "choose one of them"),
        (["run", "--protocol", "grand"], 2, "grand"),
        (["import", "nowhere.txt"], 2, "No such file"),
        (["show", "\x1b[31m0000"], 2, "there is no entry"),
    ],
)
def test_bad_input_is_a_sentence_and_nothing_is_written(
    root: Path, arguments: list[str], status: int, sentence: str
) -> None:
    done = agent(root, *arguments)
    assert done.exit_code == status
    assert sentence in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "\x1b" not in done.stderr
    assert list((root / "history").glob("[0-9]*")) == []


def test_a_path_is_as_good_as_a_name_or_an_id(scored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(scored.parent)  # a path may be meant from here or from the root
    meant = ("variants/delta_net", "variants/delta_net/", "./variants//delta_net/naive.py", "root/variants/delta_net",
             str(scored / "variants" / "delta_net"), "delta_net/")  # fmt: skip
    for text in meant:
        done = agent(scored, "score", text)
        assert (done.exit_code, document(agent(scored, "list", "--json"))[-1]["name"]) == (0, "delta_net")  # type: ignore[index]
        assert agent(scored, "check", text).exit_code == 0
    for text in ("0", "history/0000", "root/history/0000/"):
        assert document(agent(scored, "show", text, "--json"))["id"] == "0000"  # type: ignore[index]
        assert agent(scored, "check", text).exit_code == 0
    for text in ("delta_net", "variants/delta_net/"):
        done = agent(scored, "replay", text)
        assert (done.exit_code, "the entries of that name are 0000, 0001, " in done.stderr) == (2, True)


@pytest.mark.parametrize("command", ["check", "score"])
def test_the_evaluator_takes_no_other_file_for_a_variant(tmp_path: Path, command: str) -> None:
    (tmp_path / "README.md").write_text("# A page\n")
    for path in (tmp_path / "README.md", tmp_path):
        arguments = [str(path), *(["--out", str(tmp_path / "out")] if command == "score" else [])]
        done = subprocess.run([sys.executable, "-m", "evaluator", command, *arguments], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (2, f"evaluator: {path} is neither a folder with naive.py nor a .py file\n")


def test_a_root_that_does_not_exist(tmp_path: Path) -> None:
    done = agent(tmp_path / "nowhere", "list")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "there is no such folder" in done.stderr


def test_a_folder_without_a_history_is_told_in_one_sentence(root: Path) -> None:
    for form in ([], ["--json"], ["--csv"]):
        done = agent(root, "list", *form)
        assert (done.exit_code, done.stderr) == (0, f"there is no history/ in {root}: `agent run` makes the first\n")
    (root / "history").mkdir()
    assert agent(root, "list").stderr == f"history/ holds no attempt in {root}: `agent run` makes the first\n"
    (root / "history" / "0000").mkdir()
    told = agent(root, "list").stderr.splitlines()
    assert told == ["history/0000: is empty; passed over", f"history/ holds no attempt that can be read in {root}: `agent run` makes one"]
    assert "'0007' in history/; it holds none that can be read" in agent(root, "show", "0007").stderr


def test_a_folder_that_is_no_project_is_told_alike_by_all(root: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    told = f"agent: there is no {elsewhere}/variants: --root needs the project's variants/\n"
    for command in (["list"], ["list", "--csv"], ["list", "--json"], ["run"], ["score", "delta_net"]):
        done = agent(elsewhere, *command)
        assert (done.exit_code, done.stderr.endswith(told)) == (2, True)
    (elsewhere / "variants").mkdir()
    for command in ("list", "run"):
        done = agent(elsewhere, command)
        assert (done.exit_code, "variants/delta_net is no variant: it holds no naive.py" in done.stderr) == (2, True)


def test_a_rejection_is_one_json_document_too(root: Path) -> None:
    store(root, "bad", BASELINE + "# stub: reject\n")
    done = agent(root, "check", str(root / "variants" / "bad"), "--json")
    report = document(done)
    assert isinstance(report, dict)
    assert (done.exit_code, report["verdict"]) == (1, "reject")
    assert set(report) == {"variant", "verdict", "flags", "gates", "properties"}
    assert set(report["gates"][0]) == {"name", "passed", "message", "seconds"}
    shown = agent(root, "check", "bad")
    assert shown.exit_code == 1
    assert "outputs before a cut at 17" in shown.stdout
    assert "\x1b" not in shown.stdout
    failed = agent(root, "score", "bad", "--json")
    assert (failed.exit_code, document(failed)["status"]) == (1, "check-failed")  # type: ignore[index]
    assert set(document(agent(root, "check", "nowhere", "--json"))) == {"error"}  # type: ignore[call-overload]
    assert document(agent(root, "check", "0000", "--json"))["verdict"] == "reject"  # type: ignore[index]


def test_a_protocol_under_which_nothing_is_scored_is_told(scored: Path) -> None:
    empty = agent(scored, "list", "--protocol", "mad")
    assert (empty.exit_code, empty.stdout) == (0, "")
    assert "1 row(s) of other protocols" in empty.stderr
    table = agent(scored, "list", "--csv", "--protocol", "mad")
    assert (table.exit_code, table.stdout) == (2, "")
    assert "nothing is scored under mad" in table.stderr


@pytest.mark.parametrize("arguments", [("list",), ("list", "--json"), ("show", "0000", "--json")])
def test_a_full_stdout_is_a_sentence(scored: Path, arguments: tuple[str, ...]) -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "agent", *arguments, "--root", str(scored)]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    assert "No space left" in done.stderr


def test_a_terminal_that_is_not_utf_8_gets_what_it_can_show(scored: Path) -> None:
    (scored / "history" / "0000" / "insight.md").write_text("• 记忆 A lesson.\n")
    command = [sys.executable, "-m", "agent", "show", "0000", "--root", str(scored)]
    done = subprocess.run(command, capture_output=True, env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"? ?? A lesson." in done.stdout


@pytest.mark.parametrize("place", ["history", "history/.lock", "variants/delta_net/naive.py"])
def test_a_folder_for_a_file_or_a_file_for_a_folder_is_a_sentence(root: Path, place: str) -> None:
    path = root / place
    path.unlink(missing_ok=True)
    path.touch() if place == "history" else path.mkdir(parents=True)
    done = agent(root, "score", "delta_net")
    assert done.exit_code == 3
    assert place in done.stderr


def test_why_an_entry_is_refused_is_told_once_and_what_is_wrong_with_others_too(scored: Path) -> None:
    shutil.copytree(scored / "history" / "0000", scored / "history" / "0001")
    shutil.copytree(scored / "history" / "0000", scored / "history" / "0002")
    refused, beside = (f"history/000{number}: its record says that it is 0000: a copy?; passed over" for number in (1, 2))
    for command in (("show", "1"), ("show", "0001", "--json"), ("list", "--at", "history/0001"), ("replay", "0001")):
        assert agent(scored, *command).stderr == f"{beside}\nagent: {refused}\n"
    (scored / "history" / "0000" / "patch.diff").mkdir()
    assert "history/0000: patch.diff cannot be read; left out\n" in agent(scored, "show", "0").stderr


@pytest.mark.parametrize("command", ["agent list", "agent score delta_net", "agent check delta_net", "agent import x", "evaluator protocol smoke"])
def test_a_working_folder_that_is_gone_is_a_sentence(root: Path, tmp_path: Path, command: str) -> None:
    place = tmp_path / "gone"
    place.mkdir()
    program, *arguments = command.split()
    asked = [sys.executable, "-m", program, *arguments, *(["--root", str(root)] if program == "agent" else [])]
    removed = f"import os, sys; os.rmdir({str(place)!r}); os.execv(sys.executable, {asked!r})"
    environ = os.environ | {"PYTHONPATH": str(PROJECT), "PYTHONSAFEPATH": "1"}
    done = subprocess.run([sys.executable, "-c", removed], cwd=place, env=environ, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == f"{program}: the folder that this was started in is gone: start it in one that is there\n"
    assert not (root / "history").exists()


def test_a_number_that_no_entry_can_have_is_never_given(scored: Path) -> None:
    (scored / "history" / "999999999").mkdir()
    done = agent(scored, "score", "delta_net")
    assert (done.exit_code, done.stderr.splitlines()[-1]) == (
        3, "agent: history/999999999 has the last number that there is: give that folder a smaller one",
    )  # fmt: skip
    assert sorted(path.name for path in (scored / "history").iterdir()) == [".lock", "0000", "999999999"]


def test_a_lock_that_is_no_file_is_named(scored: Path) -> None:
    lock = scored / "history" / ".lock"
    lock.unlink()
    os.mkfifo(lock)
    done = agent(scored, "score", "delta_net")
    assert (done.exit_code, done.stderr) == (3, f"agent: {lock} is no file: remove it\n")


def test_a_name_that_is_no_text_is_nobodys_and_is_shown(scored: Path) -> None:
    (scored / "variants" / os.fsdecode(b"\xff")).mkdir()
    assert variants.names(scored) == {"delta_net"}
    assert r"there is no entry '\\xff'" in agent(scored, "show", os.fsdecode(b"\xff")).stderr


@pytest.mark.parametrize("seed", ["-1", "9" * 23, "x", "1.0", "\u0663"])
def test_a_seed_of_the_gates_is_a_number_that_generators_take(seed: str) -> None:
    done = CliRunner().invoke(app, ["check", "delta_net", "--seed", seed])
    assert done.exit_code == 2
    assert f"it must be a whole number from 0 to 2^63 - 1: {seed!r}" in " ".join(done.stderr.split())


@pytest.mark.parametrize("command", [("list", "--root", ""), ("import", ""), ("score", "delta_net", "--from", ""), ("replay", "0", "--out", "")])
def test_an_empty_path_is_no_path(command: tuple[str, ...]) -> None:
    done = CliRunner().invoke(app, list(command))
    assert done.exit_code == 2
    assert "an empty path" in done.stderr


def test_a_help_that_can_not_be_printed_is_one_sentence() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-m", "agent", "--help"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (3, "agent: No space left on device\n")


def test_replay_says_whether_it_is_the_same(scored: Path) -> None:
    done = agent(scored, "replay", "0000", "--json")
    assert (done.exit_code, document(done)["verdict"]) == (0, "same")  # type: ignore[index]
    assert len(list((scored / "history").iterdir())) == 2  # 0000 and the lock
    assert agent(scored, "replay", "0000", "--record").exit_code == 0
    (_, row) = document(agent(scored, "list", "--json"))  # type: ignore[misc]
    assert (row["kind"], row["status"]) == ("replay", "scored")
    naive = scored / "variants" / "delta_net" / "naive.py"
    naive.write_text(BASELINE + "# edited\n")
    done = agent(scored, "replay", "0000")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "variants/delta_net is no longer the source that 0000 scored, and no commit here holds that one" in done.stderr


def test_a_replay_that_cannot_be_recorded_is_told_before_it_trains_or_kept(scored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with history.writing(scored):
        done = agent(scored, "replay", "0000", "--record")
    assert (done.exit_code, "is writing to" in done.stderr, "smoke" in done.stdout) == (3, True, False)
    with monkeypatch.context() as patched:
        patched.setattr("agent.replay.keep_evaluation", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        done = agent(scored, "replay", "0000", "--record", "--json")
    found = document(done)
    assert (done.exit_code, found["verdict"]) == (3, "same")  # type: ignore[index]
    place = done.stderr.rpartition("--out ")[2].partition("`")[0]
    assert f"--out {place}` records what was measured" in found["unrecorded"]  # type: ignore[index]
    assert agent(scored, "replay", "0000", "--record", "--out", place).exit_code == 0
    assert [row["kind"] for row in document(agent(scored, "list", "--json"))] == ["attempt", "replay"]  # type: ignore[attr-defined]
    shutil.rmtree(place)


def test_a_replay_has_a_folder_of_its_own(scored: Path, tmp_path: Path) -> None:
    entry, copy = scored / "history" / "0000", tmp_path / "copy"
    shutil.copytree(entry, copy)
    for out, told in (
        (entry, "lies in history/ or variants/"),
        (scored / "variants", "lies in history/ or variants/"),
        (scored, "holds other files"),
        (copy, "holds the record itself"),
    ):
        done = agent(scored, "replay", "0000", "--out", str(out))
        assert (done.exit_code, f"--out {out} {told}" in done.stderr) == (2, True)
    assert not (entry / "train.log").exists() or (entry / "train.log").read_bytes() == (copy / "train.log").read_bytes()


def test_a_score_that_is_none_fails_the_attempt_and_not_the_history(root: Path) -> None:
    (root / "variants" / "delta_net" / "naive.py").write_text(BASELINE + "# stub: score=2\n")
    done = agent(root, "score", "delta_net")
    assert done.exit_code == 1
    assert "Traceback" not in done.stderr
    (row,) = document(agent(root, "list", "--json"))  # type: ignore[misc]
    assert row["status"] == "train-failed"


def test_what_is_printed_is_what_was_meant() -> None:
    assert console().render_str("m:100:x").plain == "m:100:x"


def test_a_score_that_its_runs_do_not_bear_out_is_quoted_by_nothing(scored: Path, tmp_path: Path) -> None:
    runs, elsewhere = scored / "history" / "0000" / "runs.csv", tmp_path / "elsewhere"
    shutil.copytree(runs.parent, elsewhere)
    lines = runs.read_text().splitlines()
    for content, told in (
        ([*lines[:4], *lines[5:]], "does not agree with evaluation.json (compression seq_len=64: 1 of 2 runs)"),
        ([*lines[:4], lines[4][:30], *lines[5:]], "is damaged (line 5: 4 of 15 columns)"),
        (None, "is missing"),
    ):
        for folder in (runs.parent, elsewhere):
            (folder / "runs.csv").unlink()
            (folder / "runs.csv").write_text("\n".join([*content, ""])) if content else None
        problem = f"history/0000: runs.csv {told}; passed over\n"
        done = agent(scored, "list", "--json")
        assert (done.exit_code, document(done), problem in done.stderr) == (0, [], True)
        for command in ("show", "replay"):
            done = agent(scored, command, "0000")
            assert (done.exit_code, done.stdout, done.stderr) == (2, "", f"agent: {problem}")
        done = agent(scored, "score", "delta_net", "--from", str(elsewhere))
        assert (done.exit_code, f"--from {elsewhere}: runs.csv {told}" in done.stderr) == (2, True)
    assert agent(scored, "score", "delta_net").exit_code == 0  # an entry of its own
    assert [row["id"] for row in document(agent(scored, "list", "--json"))] == ["0001"]  # type: ignore[attr-defined]


def test_a_replay_tells_before_it_trains_how_long_it_took_and_which_source_it_takes(checkout: Path) -> None:
    assert agent(checkout, "score", "delta_net").exit_code == 0
    file = checkout / "history" / "0000" / "evaluation.json"
    recorded = json.loads(file.read_text())
    file.write_text(json.dumps(recorded | {"earlier": [{"device": {"kind": "cuda", "name": "a GPU"}, "versions": {}}]}))
    told = agent(checkout, "replay", "0000").stdout.splitlines()
    assert told[0].startswith("0000: these 12 settings took 12 min of training when recorded, on a GPU and stub; ")
    assert told[1] == "replay of 0000 delta_net: smoke"
    told = agent(checkout, "replay", "0000", "--only", "memorization:baseline").stdout.splitlines()
    assert told[0].startswith("0000: that setting took 60 s of training")
    naive = checkout / "variants" / "delta_net" / "naive.py"
    naive.write_text(BASELINE + "# edited\n")
    git(checkout, "commit", "--quiet", "--all", "--message", "edited")
    (checkout / "variants" / "delta_net" / "triton.py").write_text(BASELINE)
    edited = naive.read_text()
    told = agent(checkout, "replay", "0000").stdout.splitlines()
    assert "no longer the source that 0000 scored: that one is taken from commit" in told[0]
    assert told[-1] == "0000 delta_net: same"
    shutil.rmtree(naive.parent)
    assert agent(checkout, "replay", "0000", "--record").stdout.splitlines()[-1] == "0000 delta_net: same"
    assert not naive.parent.exists()
    naive.parent.mkdir()
    naive.write_text(edited)
    file.write_text(json.dumps(recorded | {"fingerprint": "0" * 16}))
    told = agent(checkout, "replay", "0000").stdout.splitlines()
    assert any("another fingerprint of smoke (000000000000, here " in line for line in told)


def test_a_replay_of_a_part_repeats_exactly_the_settings_of_the_record(scored: Path) -> None:
    entry = scored / "history" / "0000"
    remeasured(entry, left_out=["memorization:seq_len=64"])
    done = document(agent(scored, "replay", "0000", "--json"))
    assert (done["verdict"], done["new"]["Memorize"]) == ("same", None)  # type: ignore[index]
    remeasured(entry, {"memorization:baseline": -0.1})
    assert document(agent(scored, "replay", "0000", "--json"))["verdict"] == "differs"  # type: ignore[index]


def test_a_replay_knows_every_machine_that_had_a_part_in_the_record(scored: Path) -> None:
    earlier = {"device": {"kind": "cuda", "name": "another"}, "versions": None}
    remeasured(scored / "history" / "0000", {"compression:baseline": -0.1}, earlier=[earlier])
    done = document(agent(scored, "replay", "0000", "--json"))
    assert done["changes"] == [  # type: ignore[index]
        "device kind: cuda then, cpu now", "device name: another then, stub now", "python: not recorded then, 3 now",
    ]
    assert done["verdict"] == "differs"  # type: ignore[index]


@pytest.mark.parametrize(
    ("moved", "whole", "verdict"),
    [
        ({"baseline": 0.0059}, True, "within noise"),  # of two settings: 0.00295 is under three sigma of the task
        ({"baseline": 0.0061}, True, "differs"),
        ({"baseline": 0.0059, "seq_len=64": -0.0059}, True, "within noise"),
        ({"baseline": 0.0029}, False, "within noise"),  # alone it is held to three sigma of its own
        ({"baseline": 0.0031}, False, "differs"),
        ({"seq_len=64": 0.0009}, False, "within noise"),  # less than runs that end early tell
        ({"seq_len=64": 0.0011}, False, "unknown noise"),
        ({"seq_len=64": 0.0011, "baseline": 0.0031}, False, "differs"),
    ],
)
def test_a_replay_elsewhere_is_held_to_the_noise(scored: Path, moved: dict[str, float], whole: bool, verdict: str) -> None:
    entry = scored / "history" / "0000"
    recorded = json.loads((entry / "evaluation.json").read_text())
    left_out = [] if whole else [f"compression:{name}" for name in ("baseline", "seq_len=64") if name not in moved]
    if not whole:  # of three settings
        recorded["protocol"]["settings"].append(recorded["protocol"]["settings"][0])
        recorded["tasks"]["compression"]["settings_total"] = 3
        (entry / "evaluation.json").write_text(json.dumps(recorded))
    earlier = {"device": {"kind": "cuda", "name": "another"}, "versions": None}
    remeasured(entry, {f"compression:{name}": -difference for name, difference in moved.items()}, left_out, earlier=[earlier])
    done = agent(scored, "replay", "0000", "--json")
    assert (document(done)["verdict"], done.exit_code) == (verdict, int(verdict != "within noise"))  # type: ignore[index]


def test_a_replay_of_some_settings_compares_those_and_goes_on_in_its_folder(scored: Path, tmp_path: Path) -> None:
    out = tmp_path / "again"
    asked = ["replay", "0000", "--only", "memorization:baseline", "--only", "compression:baseline", "--out", str(out)]
    done = document(agent(scored, *asked, "--json"))
    assert (done["verdict"], set(done["settings"])) == ("same", {"memorization:baseline", "compression:baseline"})  # type: ignore[index]
    rows = (out / "runs.csv").read_text()
    told = agent(scored, *asked)
    assert told.exit_code == 0
    assert (out / "runs.csv").read_text() == rows  # nothing was trained twice
    assert [line.split()[:2] for line in told.stdout.splitlines()[1:] if "baseline" in line] == [["memorization", "baseline"], ["compression", "baseline"]]
    remeasured(scored / "history" / "0000", {"compression:baseline": -0.1})
    told = agent(scored, *asked)
    assert (told.exit_code, told.stdout.splitlines()[-1]) == (1, "0000 delta_net: differs")
    wrong = agent(scored, "replay", "0000", "--only", "memorization:seq_len=65")
    assert wrong.exit_code == 2
    assert "--only memorization:seq_len=65: 0000 has no such setting; it has memorization:" in wrong.stderr


def test_score_takes_results_that_were_made_elsewhere(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    variant = root / "variants" / "delta_net"
    command = [sys.executable, "-m", "evaluator", "score", str(variant), "--protocol", "fast", "--out", str(out)]
    subprocess.run(command, check=True, capture_output=True, env=os.environ | {"PYTHONSAFEPATH": "1"})
    refused = agent(root, "score", "delta_net", "--from", str(out))
    assert (refused.exit_code, refused.stderr) == (2, f"agent: {out}: its protocol, fast, trains otherwise than smoke\n")
    done = agent(root, "score", "delta_net", "--protocol", "fast", "--from", str(out), "--json")
    assert (done.exit_code, document(done)["protocol"]) == (0, "fast")  # type: ignore[index]
    file = out / "evaluation.json"
    whole = file.read_text()
    file.write_text(json.dumps(json.loads(whole) | {"status": "partial", "finished": None}))
    done = agent(root, "score", "delta_net", "--protocol", "fast", "--from", str(out))
    assert (done.exit_code, "its evaluation has not ended" in done.stderr) == (2, True)
    file.write_text(whole)
    (variant / "naive.py").write_text(BASELINE + "# changed\n")
    done = agent(root, "score", "delta_net", "--protocol", "fast", "--from", str(out))
    assert done.exit_code == 2
    assert "another source" in done.stderr
    assert agent(root, "score", "delta_net", "--from", str(tmp_path)).exit_code == 2


@pytest.mark.parametrize("name", ["evaluation.json", "runs.csv"])
def test_results_of_elsewhere_that_are_no_files_are_refused_in_words(scored: Path, tmp_path: Path, name: str) -> None:
    file = made_elsewhere(scored / "history" / "0000", tmp_path / "elsewhere") / name
    for make, why in ((file.mkdir, "Is a directory"), (lambda: os.mkfifo(file), "Not a regular file"), (lambda: file.write_bytes(b" " * (1 << 24) + b"{}"), "it is larger than 16 MiB")):
        file.rmdir() if file.is_dir() else file.unlink()
        make()
        done = agent(scored, "score", "delta_net", "--from", str(file.parent))
        assert (done.exit_code, f"cannot be read ({why})" in done.stderr, done.stderr.count("agent: ")) == (2, True, 1), done.stderr


def test_an_entry_of_mad_has_a_row_of_fast_in_it(root: Path) -> None:
    assert agent(root, "score", "delta_net", "--protocol", "mad").exit_code == 0
    done = agent(root, "score", "delta_net", "--protocol", "fast", "--from", str(root / "history" / "0000"), "--json")
    row = document(done)
    assert (row["protocol"], row["status"], row["id"]) == ("fast", "scored", "0001")  # type: ignore[index]
    assert json.loads((root / "history" / "0001" / "attempt.json").read_text())["source"] == str(root / "history" / "0000")
    assert [row["id"] for row in document(agent(root, "list", "--json", "--protocol", "fast"))] == ["0001"]  # type: ignore[attr-defined]


def test_a_second_run_is_refused_in_words_and_ctrl_c_ends_the_first(root: Path) -> None:
    (root / "variants" / "delta_net" / "naive.py").write_text(BASELINE + "# stub: hang\n")
    first = subprocess.Popen(
        [sys.executable, "-m", "agent", "run", "--root", str(root)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip
    log = root / "history" / "0000" / "train.log"
    end = time.monotonic() + 120
    while not (log.exists() and log.stat().st_size) and time.monotonic() < end:
        time.sleep(0.05)
    assert document(agent(root, "list", "--json"))[0]["status"] == "running"  # type: ignore[index]
    second = agent(root, "run")
    assert second.exit_code == 3
    assert f"agent, process {first.pid}, is writing" in second.stderr
    first.send_signal(signal.SIGINT)
    _, told = first.communicate(timeout=120)
    assert first.returncode == 130
    assert "Traceback" not in told
    (row,) = document(agent(root, "list", "--json"))
    assert (row["status"], row["success"]) == ("interrupted", None)  # type: ignore[index]
    assert not subprocess.run(["pgrep", "-f", f"evaluator score {root}"], capture_output=True).stdout


@pytest.mark.parametrize("url", ["http://[::1", "http://h:abc/v1", "http://a..b/", "http://" + "a" * 70 + ".de"])
def test_an_address_that_is_none_is_a_sentence_before_anything_is_made(root: Path, url: str) -> None:
    done = agent(root, "run", "--base-url", url)
    assert done.exit_code == 2
    assert "base" in done.stderr
    assert not (root / "history").exists()


def test_a_deadline_beyond_a_day_is_refused(root: Path) -> None:
    done = agent(root, "run", "--base-url", "http://127.0.0.1:9/v1", AGENT_ANSWER_SECONDS="1e300")
    assert done.exit_code == 2
    assert done.stderr.splitlines()[-1] == "agent: AGENT_ANSWER_SECONDS=1e300: it must be at most 86400"


def test_a_model_name_that_is_no_text_leaves_no_entry(root: Path) -> None:
    for given in (("--model", os.fsdecode(b"m\xff")), ("--model", "a\nb\x1b[31m")):
        done = agent(root, "run", *given)
        assert done.exit_code == 2
        assert "the setting 'model'" in done.stderr
    assert not (root / "history").exists()


def test_settings_by_flag_environment_and_file_in_that_order(root: Path) -> None:
    (root / "agent.toml").write_text('protocol = "mad"\nseed = 3\n')
    agent(root, "score", "delta_net")
    agent(root, "score", "delta_net", AGENT_PROTOCOL="fast")
    agent(root, "score", "delta_net", "--protocol", "smoke", AGENT_PROTOCOL="fast")
    assert [row["protocol"] for row in document(agent(root, "list", "--json"))] == ["mad", "fast", "smoke"]  # type: ignore[attr-defined]
    (root / "agent.toml").write_text('protokol = "mad"\n')
    done = agent(root, "score", "delta_net")
    assert done.exit_code == 2
    assert done.stderr == "agent: agent.toml: there is no setting 'protokol'; did you mean protocol?\n"
    for line, wanted in {
        'protocol = "grand"': "agent.toml, protocol = grand: it must be 'smoke', 'fast' or 'mad'",
        "seed = 1.5": "agent.toml, seed = 1.5: it must be a whole number",
        "evaluation_hours = inf": "agent.toml, evaluation_hours = inf: it must be a finite number",
    }.items():
        (root / "agent.toml").write_text(line)
        assert agent(root, "score", "delta_net").stderr == f"agent: {wanted}\n"
    (root / "agent.toml").write_text("no toml")
    assert "is no TOML" in agent(root, "score", "delta_net").stderr
    (root / "agent.toml").write_bytes(b'\xef\xbb\xbfprotocol = "fast"\r\n')
    assert agent(root, "list").exit_code == agent(root, "score", "delta_net").exit_code == 0


def test_a_misspelt_variable_is_told_and_the_command_goes_on(scored: Path) -> None:
    done = agent(scored, "score", "delta_net", AGENT_PROTOCL="fast", AGENT_OF_A_BUILD_SERVER="x")
    assert done.exit_code == 0
    assert done.stderr.splitlines() == [
        "AGENT_OF_A_BUILD_SERVER is no setting and has no effect",
        "AGENT_PROTOCL is no setting and has no effect; did you mean AGENT_PROTOCOL?"]  # fmt: skip
    assert agent(scored, "score", "delta_net", AGENT_SEED="x").stderr == "agent: AGENT_SEED=x: it must be a whole number\n"


def test_an_agent_toml_that_is_no_file_is_a_sentence(root: Path) -> None:
    file = root / "agent.toml"
    for make in (file.mkdir, lambda: file.symlink_to("agent.toml"), lambda: os.mkfifo(file), lambda: file.symlink_to("/dev/zero"), lambda: os.mknod(file, stat.S_IFSOCK)):
        make()
        done = agent(root, "score", "delta_net")
        assert (done.exit_code, done.stderr.count("cannot be read")) == (2, 1)
        file.rmdir() if file.is_dir() else file.unlink()


def test_a_source_is_read_whole_or_refused(root: Path) -> None:
    source = store(root, "mine", BASELINE + "#" * (1 << 20)) / "naive.py"
    done = agent(root, "score", "mine")
    assert (done.exit_code, done.stderr.splitlines()[-1]) == (2, f"agent: {source}: it is larger than 1 MiB")


def test_manual_takes_the_answer_from_a_file(root: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "agent", "run", "--proposer", "manual", "--root", str(root)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)  # fmt: skip
    prompt = root / "history" / "0001" / "prompt.md"
    end = time.monotonic() + 120
    while not prompt.exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert "# Your parent: `delta_net`" in prompt.read_text()
    answer = prompt.with_name("answer.md")
    answer.write_text(reply("by_hand"))
    os.utime(answer, (time.time() + 3600,) * 2)  # as by a file server whose clock is ahead
    output, _ = child.communicate(timeout=120)
    assert child.returncode == 0, output
    assert "answer.md" in output
    assert (root / "variants" / "by_hand" / "naive.py").exists()


def test_text_of_strangers_is_printed_without_escapes(root: Path, tmp_path: Path) -> None:
    evil = "\x1b]0;owned\x07\x1b[2Jevil\u202e[bold]net[/bold]"
    record = tmp_path / "record.txt"
    record.write_text(f"Unnamed: 0  {'  '.join(COLUMNS)}\n0  {evil}  0.1  0.2  0.3  0.4  0.5  0.6\n\nName\n\n{evil}\n")
    done = agent(root, "import", str(record))
    assert done.exit_code == 0
    for arguments in (["list"], ["show", "0000"], ["list", "--csv"], ["list", "--json"]):
        shown = agent(root, *arguments).stdout
        assert "\x1b" not in shown
        assert "\u202e" not in shown
    assert "evil[bold]net[/bold]" in agent(root, "list").stdout


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes where nobody may")
def test_a_read_only_root_is_a_sentence(scored: Path) -> None:
    (scored / "history").chmod(0o555)
    done = agent(scored, "run")
    assert (done.exit_code, "Permission denied" in done.stderr) == (3, True)


@pytest.mark.parametrize("size", [0, 50, 250, 400])
def test_a_full_disk_is_a_sentence_and_nothing_counts(root: Path, size: int) -> None:
    """No file may grow beyond `size`: the write that does fails in each of them, as it would on a full disk."""
    script = (
        "import resource, sys; from agent.cli import app\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))\n"
        "app(['score', 'delta_net', '--root', sys.argv[1]])"
    )
    done = subprocess.run([sys.executable, "-c", script, str(root), str(size)], capture_output=True, text=True)
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    assert "File too large" in done.stderr
    rows = document(agent(root, "list", "--json"))
    assert all(row["status"] == "interrupted" for row in rows)  # type: ignore[attr-defined]
    assert agent(root, "score", "delta_net").exit_code == 0


@pytest.mark.parametrize("command", ["run", "list", "show", "replay", "score", "check", "import"])
def test_help(root: Path, command: str) -> None:
    done = CliRunner().invoke(app, [command, "--help"], prog_name="agent")
    assert done.exit_code == 0
    assert done.stdout.startswith(f"Usage: agent {command} [OPTIONS]")
    assert "--root DIR" in done.stdout


def test_a_narrow_terminal_shows_every_figure(scored: Path) -> None:
    def shown(width: int) -> str:
        text = StringIO()
        past = history.read(scored)
        Console(file=text, width=width).print(show.in_full(past.entries[0], past, scored))
        return text.getvalue()

    entry = history.read(scored).entries[0]
    for column in COLUMNS:
        assert f"{column}: score {entry.scores[column]:.4f}" in shown(30)
    assert any(line.split()[:4] == ["task", "score", "parent", "difference"] for line in shown(100).splitlines())
    assert "\N{HORIZONTAL ELLIPSIS}" not in shown(30)


def test_a_change_that_acts_nowhere_is_told() -> None:
    scores: dict[str, float | None] = dict.fromkeys(COLUMNS, 0.5)
    same = Comparison("child", "delta_net", "delta_net", "smoke", scores, scores, dict.fromkeys(COLUMNS, 0.01), {})
    assert in_short(same) == "mean of six 0.5000, and each of the six equal to delta_net's to the last digit: what was changed acts nowhere in them"
