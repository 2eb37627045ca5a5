"""Old records: what is there is kept as it stands, what is missing or odd is told, and nothing is made up."""

import csv
import io
import json
import os
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from agent import history, listing, policy
from agent.earlier.cells import is_plain
from agent.earlier.importer import Imported, import_files
from agent.earlier.record import decode, parse
from agent.earlier.values import Line
from agent.errors import BadInput
from agent.options import RECORD_FORM
from agent.records import COLUMNS

HEADER = "Unnamed: 0  Compress  Context Recall  Fuzzy Recall  Memorize  Noisy Recall  Selective Copy"
PLAIN = "0     plain_net  0.410000        0.990000      0.150000  0.330000      0.980000        0.970000"
OTHER = "1  other (v2) net  0.420000        0.910000      0.250000  0.430000      0.880000        0.870000"
INSIGHT = "Beobachtung: das Gedächtnis läuft über.\n• 记忆\nName it what you like."


def record(
    *rows: str, header: str = HEADER, stamp: str = "20240131_235959", insights: str = f"--- Insights ---\n{INSIGHT}",
    name: str | None = "wider_net", success: str | None = "true",
) -> str:  # fmt: skip
    labels = (f"\nName\n\n{name}\n" if name is not None else "") + (f"\nSuccess\n\n{success}\n" if success is not None else "")
    return "\n".join([f"   {header}", *(rows or (PLAIN, OTHER)), "", stamp, "", insights, labels])


def test_a_whole_record() -> None:
    found = parse(record().encode())
    assert [line.name for line in found.lines] == ["plain_net", "other (v2) net"]
    assert found.lines[0].values["Compress"] == "0.410000"
    assert found.stamp is not None
    assert found.stamp.isoformat() == "2024-01-31T23:59:59"
    assert found.insights == INSIGHT
    assert (found.name, found.success) == ("wider_net", True)
    assert found.oddities == ()


def test_a_table_wrapped_by_its_printer_is_joined() -> None:
    text = (
        "       Unnamed: 0  Compress  Context Recall  \\\n0      plain_net  0.410000        0.990000   \n"
        "1      other_net       NaN        0.910000   \n\n"
        "   Fuzzy Recall  Memorize  Noisy Recall  Selective Copy  \n0      0.150000  0.330000      0.980000        0.970000  \n"
        "1      0.250000  0.430000      0.880000        0.870000  \n"
    )
    found = parse(text.encode())
    assert [line.name for line in found.lines] == ["plain_net", "other_net"]
    assert list(found.lines[0].values) == list(COLUMNS)
    assert "the row 'other_net' has no Compress" in found.oddities


@pytest.mark.parametrize(
    ("text", "oddity"),
    [
        (record(name=""), "the name is empty"),
        (record(name=None), "there is no name"),
        (record(success=None), "there is no success flag"),
        (record(success="perhaps"), "success is 'perhaps', neither true nor false"),
        (record(stamp=""), "there is no time stamp"),
        (record(stamp="20241399_000000"), "the time stamp 20241399_000000 is no time"),
        (record(insights=INSIGHT), "there is no line '--- Insights ---': what follows the time stamp is taken for the insights"),
        (record(PLAIN, PLAIN), "the row 'plain_net' stands there twice, with the same values"),
        (record(PLAIN, PLAIN.replace("0.41", "0.42")), "the name 'plain_net' stands there with different values: both are kept"),
        (record(PLAIN.replace("0.410000", "     NaN")), "the row 'plain_net' has no Compress"),
        (record(PLAIN + "  1.0", header=HEADER + "  Mean"), "columns that are none of the six stay in record.txt alone: Mean"),
        (record("0  torn_net  0.41  0.9"), "this line of the table is not understood: '0 torn_net 0.41 0.9'"),
        (record(PLAIN.replace("plain_net", "")), "row 0 of the table has no name"),
        (record(" ", header=" "), "there is no score table"),
        (record(PLAIN.replace("0.410000", "1.500000")), "the row 'plain_net' has '1.500000' as Compress, which is outside of 0 to 1: kept as it stands"),
        (record(PLAIN.replace("0.410000", "-0.41000")), "the row 'plain_net' has '-0.41000' as Compress, which is outside of 0 to 1: kept as it stands"),
        (record(PLAIN.replace("0.410000", "1e400")), "the row 'plain_net' has '1e400' as Compress, which is no finite number: it stays in record.txt alone"),
        (record(PLAIN + "  1.0", header=HEADER + "  Compress"), "columns that stand there twice, of which the last is kept: Compress"),
        (record(PLAIN.replace("0.410000", "     OOM")), "the row 'plain_net' has 'OOM' as Compress, which is no plain number: it stays in record.txt alone"),
        (record(PLAIN.replace("plain_net", "plain_n...")), "1 of the names are cut off by the table's printer, as 'plain_n...'"),
        (record(PLAIN, "..  ...  ...  ...  ...  ...  ...  ..."), "the table has a line of dots: rows of it are not in this record"),
        (record(PLAIN, "..  ...  ...", "[17 rows x 7 columns]"), "16 of the table's 17 rows are not in this record"),
        (record() + "\nError\n\nout of memory\n", "what stands behind the name or the success flag stays in record.txt alone: 'Error'"),
        (record() + "\nSuccess\n\nfalse\n", "there are 2 success flags, of which none is taken: true, false"),
        (record(PLAIN.replace("0.410000", "1_0")), "the row 'plain_net' has '1_0' as Compress, which is no plain number: it stays in record.txt alone"),
        (record(PLAIN.replace("0.410000", "\u0661")), "the row 'plain_net' has '\u0661' as Compress, which is no plain number: it stays in record.txt alone"),
    ],
)  # fmt: skip
def test_what_is_missing_or_odd_is_told(text: str, oddity: str) -> None:
    found = parse(text.encode())
    assert oddity in found.oddities
    assert found.insights == INSIGHT


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_encodings_and_line_ends(encoding: str, line_end: str) -> None:
    found = parse(record().replace("\n", line_end).encode(encoding))
    assert found.insights == INSIGHT
    assert len(found.lines) == 2
    assert found.name == "wider_net"


def test_an_encoding_that_had_to_be_guessed_is_told() -> None:
    assert decode("Gedächtnis".encode("latin-1"))[1] == "it is not UTF-8: read as cp1252"
    assert decode("记忆".encode("gb18030")) == ("记忆", "it is not UTF-8: read as gb2312")


def test_a_label_on_one_line_and_names_letter_for_letter() -> None:
    found = parse((record(name=None, success=None) + "\nName: Ünïcode  name\nSuccess: False\n").encode())
    assert (found.name, found.success) == ("Ünïcode  name", False)


def test_a_label_in_bold() -> None:
    found = parse((record(name=None, success=None) + "\n**Name:** wider_net\n**Success:** true\n").encode())
    assert (found.name, found.success) == ("wider_net", True)


@pytest.mark.parametrize(
    "table",
    [
        ',"Compress","Context Recall","Fuzzy Recall","Memorize","Noisy Recall","Selective Copy"\n'
        '0,"a, b net",0.4,0.9,0.1,,0.9,0.9\n',
        "| name | Compress | Context Recall | Fuzzy Recall | Memorize | Noisy Recall | Selective Copy |\n"
        "|:---|---:|---|---|---|---|---|\n| a, b net | 0.4 | 0.9 | 0.1 |  | 0.9 | 0.9 |\n",
    ],
)
def test_a_table_with_quotes_or_in_markdown(table: str) -> None:
    found = parse(table.encode())
    assert found.lines == (Line("a, b net", {
        "Compress": "0.4", "Context Recall": "0.9", "Fuzzy Recall": "0.1", "Noisy Recall": "0.9", "Selective Copy": "0.9"}),)  # fmt: skip
    assert "the row 'a, b net' has no Memorize" in found.oddities
    assert not any("not understood" in oddity for oddity in found.oddities)


@pytest.mark.parametrize(
    "prose",
    ["Success\n\n• tanh held it.\n\nFailure\n\n• adam.", "Success: true, softmax held it.\nName: an idea\nEND", "**Success:** tanh.\n\nName: x\nWhy: y",
     "Name: the trick\nSuccess: likely\nEND", "## Success\ntanh\n## Name\nof the trick\nEND"],
)  # fmt: skip
@pytest.mark.parametrize("labels", [True, False])
def test_insights_may_say_the_words_of_labels(prose: str, labels: bool) -> None:
    text = record(insights=f"--- Insights ---\n{prose}\n{INSIGHT}", **({} if labels else {"name": None, "success": None}))  # type: ignore[arg-type]
    found = parse(text.encode())
    assert found.insights == f"{prose}\n{INSIGHT}"
    assert (found.name, found.success) == (("wider_net", True) if labels else (None, None))


def test_labels_in_small_letters_between_dashes_and_before_the_insights() -> None:
    bare = record(name=None, success=None)
    small = parse((bare + "\nname\n\nwider_net\n\nsuccess\n\ntrue\n").encode())
    dashes = parse((bare + "\n--- Name ---\nwider_net\n\n--- Success ---\nTrue\n").encode())
    before = parse(bare.replace("--- Insights", "Name\n\nwider_net\n\nSuccess\n\ntrue\n\n--- Insights").encode())
    for found in (small, dashes, before):
        assert (found.name, found.success, found.insights, found.oddities) == ("wider_net", True, INSIGHT, ())


@pytest.mark.parametrize("last", ["", "\n   Mean  \n0   0.5  \n1   0.6  \n"])
@pytest.mark.parametrize("front", ["   Unnamed: 0  \\\n0   plain_net   \n1   other_net   \n\n", ""])
def test_a_block_may_hold_names_or_something_else_alone(front: str, last: str) -> None:
    blocks = "   Compress Context Recall  \\\n0  0.1  0.2  \n1  0.2  0.3  \n\n   Fuzzy Recall  Memorize  Noisy Recall  Selective Copy" + ("  \\" if last else "")
    rows = "0  0.3  0.4  0.5  0.6\n1  0.4  0.5  0.6  0.7\n"
    found = parse(f"{front}{blocks}\n{rows}{last}".encode())
    assert [line.name for line in found.lines] == (["plain_net", "other_net"] if front else ["", ""])
    assert [list(line.values.values()) for line in found.lines] == [["0.1", "0.2", "0.3", "0.4", "0.5", "0.6"], ["0.2", "0.3", "0.4", "0.5", "0.6", "0.7"]]


def test_no_column_of_numbers_gives_names_and_no_row_with_a_gap_is_shifted() -> None:
    found = parse(b"Params  Variant Name  Compress  Memorize\n100  plain_net  0.1  0.2\n")
    assert found.lines == (Line("plain_net", {"Compress": "0.1", "Memorize": "0.2"}),)
    gap = parse(record(PLAIN, "1  gap_net  0.1  0.2  0.3  0.4  0.5").encode())
    assert [line.name for line in gap.lines] == ["plain_net"]
    assert "this line of the table is not understood: '1 gap_net 0.1 0.2 0.3 0.4 0.5'" in gap.oddities


def test_a_damaged_byte_is_told_and_the_rest_read() -> None:
    found = parse(record().encode().replace("läuft".encode(), b"l\xa4uft"))
    assert found.insights == INSIGHT.replace("ä", "\ufffd", 2).replace("\ufffd", "ä", 1)
    assert found.oddities[0].startswith("it is UTF-8 but for 1 of its bytes, each of which stands as \ufffd: ")


def test_a_time_stamp_in_another_form_and_empty_insights() -> None:
    found = parse(record(stamp="2024-01-31 23:59:59", insights="--- Insights ---").encode())
    assert found.stamp is not None
    assert found.stamp.isoformat() == "2024-01-31T23:59:59"
    assert found.oddities == ("the insights are empty",)


def test_two_records_in_one_file_are_refused() -> None:
    with pytest.raises(BadInput, match=r"^it holds 2 records, each with its time stamp and insights: a file for each can be imported$"):
        parse((record() + "\n" + record()).encode())


SCORES = dict(zip(COLUMNS, ("0.1", "0.2", "0.3", "0.4", "0.5", "0.6"), strict=True))
TASKS = "compression,in-context-recall,fuzzy-in-context-recall,memorization,noisy-in-context-recall,selective-copying"


@pytest.mark.parametrize("mark", [",", ";", "\t", " | ", "|", "  "])
@pytest.mark.parametrize("names", [",".join(COLUMNS), ",".join(COLUMNS).upper(), ",".join(COLUMNS).lower(), TASKS, TASKS.replace("-", "_")])
def test_a_table_is_read_whatever_separates_its_cells_and_however_the_six_are_spelled(mark: str, names: str) -> None:
    table = [["Model", *names.split(",")], ["one (v2)", *SCORES.values()], ["two", *SCORES.values()]]
    found = parse("\n".join(mark.join(line) for line in table).encode())
    assert found.lines == (Line("one (v2)", SCORES), Line("two", SCORES))
    spelled = [oddity for oddity in found.oddities if "spelled otherwise" in oddity]
    assert len(spelled) == (names != ",".join(COLUMNS))
    assert not any("not understood" in oddity for oddity in found.oddities)


@pytest.mark.parametrize(
    ("table", "lines", "told"),
    [
        ("Rank,Model,Compress,Notes,Memorize\n1,net,0.1,a note,0.2", [("net", "0.1", "0.2")], "none of the six stay in record.txt alone: Rank, Notes"),
        ('Model,Compress,Params,Memorize\nnet,0.1,"1,234",0.2', [("net", "0.1", "0.2")], "none of the six stay in record.txt alone: Params"),
        ("Model,Compress,Memorize\na,0.1,x\nb,0.3,0.4", [("a", "0.1", None), ("b", "0.3", "0.4")], "the row 'a' has 'x' as Memorize, which is no plain number"),
        ("Model,Compress,Memorize\na,10%,0.2", [("a", "0.10", "0.2")], "scores are written otherwise than as plain numbers: '10%' as 0.10"),
        ("Model;Compress;Memorize\na;0,1;0.2", [("a", "0.1", "0.2")], "scores are written otherwise than as plain numbers: '0,1' as 0.1"),
        ("Model;Compress;Memorize\na;42,5 %;7,1 \u00b1 0,3 %", [("a", "0.425", "0.071")], "scores are written otherwise than as plain numbers: '42,5 %' as 0.425"),
        ("Model  Compress  Memorize\na  0.1±0.01  0.2", [("a", "0.1", "0.2")], "scores are written otherwise than as plain numbers: '0.1±0.01' as 0.1"),
        ("Model,Compress (%),Memorize\na,48.1,0.2", [("a", "0.481", "0.2")], "'48.1%' as 0.481"),
        ("Model,Compress,Memorize\na,**0.1**,0.2\u2020", [("a", "0.1", "0.2")], "'**0.1**' as 0.1"),
        ("Model,Compress,Memorize\na,0.10 (-0.18),12.5 \u00b1 0.3%", [("a", "0.10", "0.125")], "'0.10 (-0.18)' as 0.10"),
        ("Model,Compress,Memorize\na,12.5 (\u00b10.2) %,0.2", [("a", "0.125", "0.2")], "'12.5 (\u00b10.2) %' as 0.125"),
        ("\u2502 Model \u2502 Compress \u2502 Memorize \u2502\n\u251c\u2500\u2500\u253c\u2500\u2500\u2524\n\u2502 a \u2502 0.1 \u2502 0.2 \u2502", [("a", "0.1", "0.2")], "the row 'a' has no"),
        ("Model,test/compression_acc,Memorisation Score\na,0.1,0.2", [("a", "0.1", "0.2")], "Memorisation Score as Memorize"),
        ("Model,Compress,Memorize\na,0.1,0.2 \\\\\nb,0.3,0.4", [("a", "0.1", None), ("b", "0.3", "0.4")], "which is no plain number"),
        ("task,score\ncompression,0.1\nmemorization,0.2", [("", "0.1", "0.2")], "the scores stand a task a line"),
        ("- **Compress**: 0.1\n- Memorize: 20%", [("", "0.1", "0.20")], "the scores stand a task a line"),
        ("Depth = 42,5 %\n- Compress: 0.1\n- Memorize: 0.2", [("", "0.1", "0.2")], "the scores stand a task a line"),
        ("{'Compress': 0.1, 'Memorize': 0.2}", [("", "0.1", "0.2")], "the scores stand a task a line"),
        ("| Task | a | b |\n|---|---|---|\n| Compress | 0.1 | 0.3 |\n| Memorize | 0.2 | 0.4 |", [("a", "0.1", "0.2"), ("b", "0.3", "0.4")], "the scores stand a task a line"),
        ("          a    b\nCompress  0.1  0.3\nMemorize  0.2  0.4", [("a", "0.1", "0.2"), ("b", "0.3", "0.4")], "the scores stand a task a line"),
        ('Model,Compress,Memorize\na,"1,234",0.2', [("a", None, "0.2")], "the row 'a' has '1,234' as Compress, which is no plain number"),
        ("Model,Compress,Memorize\na,1.5,0.2", [("a", "1.5", "0.2")], "which is outside of 0 to 1: kept as it stands"),
        ("Model,Compress,Memorize\n,0.1,0.2", [("", "0.1", "0.2")], "row line 0 of the table has no name"),
        ("Model,Compress,Memorize\na,n/a,0.2", [("a", None, "0.2")], "the row 'a' has no Compress"),
        ("Model,Compress,Memorize\na,0.1\nb,0.3,0.4", [("b", "0.3", "0.4")], "this line of the table is not understood: 'a,0.1'"),
        ("Model,Compress,Memorize\na,0.1,0.2,0.9\nb,0.3,0.4", [("b", "0.3", "0.4")], "this line of the table is not understood: 'a,0.1,0.2,0.9'"),
        ("Model  Compress  Memorize\na  0.1  0.2  0.9\nb  0.3  0.4", [("b", "0.3", "0.4")], "this line of the table is not understood: 'a 0.1 0.2 0.9'"),
        ("Model  Compress  Memorize\na  0.1  x\nb  0.3  0.4", [("b", "0.3", "0.4")], "this line of the table is not understood: 'a 0.1 x'"),
        ("| Model | Compress | Memorize |\n|---|---|\n| `a_b` | **0.1** | 0.2 |", [("a_b", "0.1", "0.2")], "the row 'a_b' has no Context Recall"),
        ("Model,Compress,Memorize,compress\na,0.1,0.2,0.3", [("a", "0.3", "0.2")], "stand there twice, of which the last is kept: Compress"),
        ("Model,Compress,Memorize\nthen, we saw, a lot\na,0.1,0.2", [("a", "0.1", "0.2")], "this line of the table is not understood: 'then, we saw, a lot'"),
        ("Compress,Memorize\n0.1,0.2", [("", "0.1", "0.2")], "row line 0 of the table has no name"),
        ("Model,Accuracy\nnet,0.4", [], "there is a table without any of the six columns ('Model,Accuracy')"),
        ("Compression and memorization, in short, rise.", [], "there is no score table"),
    ],
)  # fmt: skip
def test_of_a_table_what_is_sound_is_read_and_the_rest_is_told(
    table: str, lines: list[tuple[str, str | None, str | None]], told: str
) -> None:
    found = parse(table.encode())
    assert [(line.name, line.values.get("Compress"), line.values.get("Memorize")) for line in found.lines] == lines
    assert any(told in oddity for oddity in found.oddities)


def test_a_table_whose_words_are_apart_by_one_blank() -> None:
    assert parse(f"Model {' '.join(COLUMNS)}\none (v2) {' '.join(SCORES.values())}".encode()).lines == (Line("one (v2)", SCORES),)


def test_a_row_named_like_a_column_is_no_header() -> None:
    found = parse(f"Model  {'  '.join(COLUMNS)}\nCompress  {'  '.join(SCORES.values())}\nnet  {'  '.join(SCORES.values())}".encode())
    assert found.lines == (Line("Compress", SCORES), Line("net", SCORES))


def test_comma_separated_values() -> None:
    text = ",Compress,Context Recall,Fuzzy Recall,Memorize,Noisy Recall,Selective Copy\n0,net,0.4,0.9,0.1,,0.9,0.9\n"
    (line,) = parse(text.encode()).lines
    assert line.name == "net"
    assert "Memorize" not in line.values


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root" / "variants").mkdir(parents=True)
    return tmp_path / "root"


def bring(root: Path, **texts: str | bytes) -> dict[str, Imported]:
    files = []
    for name, text in texts.items():
        file = root.parent / f"{name}.txt"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        files.append(file)
    return dict(zip(texts, import_files(root, files, None, print), strict=True))


def test_an_entry_holds_the_record_verbatim_its_table_and_its_insight(root: Path) -> None:
    text = record().replace("\n", "\r\n").encode()
    done = bring(root, one=text)["one"]
    folder = root / "history" / (done.id or "")
    assert (folder / "record.txt").read_bytes() == text
    assert (folder / "insight.md").read_text() == INSIGHT + "\n"
    rows = list(csv.DictReader((folder / "results.csv").open()))
    assert list(rows[0]) == ["name", *COLUMNS]
    assert rows[1] | {} == {"name": "other (v2) net", "Compress": "0.420000", "Context Recall": "0.910000",
                            "Fuzzy Recall": "0.250000", "Memorize": "0.430000", "Noisy Recall": "0.880000",
                            "Selective Copy": "0.870000"}  # fmt: skip
    about = json.loads((folder / "attempt.json").read_text())
    assert (about["kind"], about["status"], about["name"], about["success"]) == ("imported", "imported", "wider_net", True)


def test_a_table_that_is_gone_is_told_and_what_else_the_entry_holds_is_not_lost(root: Path) -> None:
    table = root / "history" / (bring(root, one=record())["one"].id or "") / "results.csv"
    for damage in (lambda: table.write_text("no table"), table.unlink, table.mkdir):
        damage()
        past = history.read(root)
        assert [(row.name, row.lesson) for row in listing.rows(past)] == [("wider_net", INSIGHT.splitlines()[0])]
        (problem,) = past.problems
        assert problem.startswith("history/0000: results.csv ")
        assert problem.endswith("; left out")


def test_equal_rows_of_many_records_are_listed_once_with_their_sources(root: Path) -> None:
    bring(root, one=record(), two=record(PLAIN, name="newer_net"), three=record(PLAIN.replace("0.41", "0.43"), name=None))
    rows = listing.rows(history.read(root))
    shown = [(row.name, row.sources) for row in rows]
    assert shown == [
        ("plain_net", ("0000", "0001")), ("other (v2) net", ("0000",)), ("wider_net", ("0000",)),
        ("newer_net", ("0001",)), ("plain_net", ("0002",))]  # fmt: skip
    assert [row.as_json()["scores"]["Compress"] for row in rows] == [0.41, 0.42, None, None, 0.43]
    assert {row.as_json()["mad_score"] for row in rows} == {None}
    assert {row.kind for row in rows} == {"imported"}


def test_other_values_for_a_name_in_another_record_are_told(root: Path) -> None:
    done = bring(root, one=record(), two=record(PLAIN.replace("0.41", "0.43")))
    assert "'plain_net' has other values in 0000: both are kept" in done["two"].notes
    done = bring(root, **{f"more_{number}": record(PLAIN.replace("0.41", f"0.5{number}")) for number in range(4)})
    assert done["more_3"].notes == ("'plain_net' has other values in 0000, 0001, 0002 and 2 more: all are kept",)


@pytest.mark.parametrize(
    ("cut", "kept", "told"),
    [
        ("0.970", "0.970", "it ends in the table, and without a line end: 0.970 may be cut off"),
        ("0.", None, "the row 'plain_net' has '0.\ufffd' as Selective Copy, which is no plain number: it stays in record.txt alone"),
        ("0.970\n", "0.970", None),
    ],
)
def test_a_file_that_is_cut_off_in_its_last_number(cut: str, kept: str | None, told: str | None) -> None:
    found = parse(f"{HEADER}\n{PLAIN.replace('0.970000', cut)}".encode())
    assert found.lines[0].values.get("Selective Copy") == kept
    assert [oddity for oddity in found.oddities if "cut off" in oddity or "plain number" in oddity] == ([told] if told else [])


def test_a_blank_may_stand_before_a_percent_sign() -> None:
    found = parse(record("0  plain_net  41 %  99.5 %  15 %  33 %  98 %  97 %").encode())
    assert [list(line.values.values()) for line in found.lines] == [["0.41", "0.995", "0.15", "0.33", "0.98", "0.97"]]


@pytest.mark.parametrize("damage", [b"\0", b"\x07\x01"])
def test_a_number_with_a_damaged_byte_in_it_is_no_other_number(damage: bytes) -> None:
    found = parse(record().encode().replace(b"0.410000", b"0." + damage + b"10000"))
    assert "Compress" not in found.lines[0].values
    assert "1 control characters within words stand as \ufffd each" in found.oddities
    assert "the row 'plain_net' has '0.\ufffd10000' as Compress, which is no plain number: it stays in record.txt alone" in found.oddities
    whole = parse(record().encode("utf-16-le"))  # without its mark: as many zeros as letters
    assert whole.lines[0].values["Compress"] == "0.410000"


def test_the_same_file_again_is_no_new_entry(root: Path) -> None:
    bring(root, one=record())
    assert bring(root, again=record())["again"].notes == ("the same record is there already as 0000",)
    assert len(history.read(root).entries) == 1


def test_a_file_that_is_no_record_is_refused_and_the_others_are_not(root: Path) -> None:
    done = bring(root, picture=b"\x89PNG\r\n\x1a\n" + bytes(range(256)), good=record())
    assert done["picture"].id is None
    assert "does not look like a record" in (done["picture"].refused or "")
    assert done["good"].id == "0000"
    done = bring(root, bad="name,Compress,Memorize\none,0.1\ntwo,x,y", bare="name,Compress,Memorize\n", other="Model,Accuracy\nnet,0.4\n")
    assert [str(imported.refused).partition(": no insights and no name")[0] for imported in done.values()] == [
        "it holds nothing but a score table with no row that can be read ('one,0.1')",
        "it holds nothing but a score table without rows",
        "it holds nothing but a table without any of the six columns ('Model,Accuracy')",
    ]
    missing = next(iter(import_files(root, [root / "nowhere.txt"], None, print)))
    assert missing.refused == "No such file or directory"


def test_a_narrow_terminal_shows_every_name_and_score_in_full(root: Path) -> None:
    bring(root, one=record(PLAIN, "1  " + "long_" * 12 + "net  0.42  0.91  0.25  0.43  0.88  0.87"))
    narrow = Console(width=80, file=io.StringIO())
    narrow.print(listing.table(listing.rows(history.read(root)), narrow.width))
    shown = narrow.file.getvalue()
    assert "0000  plain_net, imported" in shown
    assert "long_" * 12 + "net" in shown.replace("\n", "")
    assert all(score in shown for score in ("0.4100", "0.9900", "0.1500", "0.3300", "0.9800", "0.9700"))
    assert "…" not in shown


def test_a_name_that_is_no_text_is_no_obstacle(root: Path) -> None:
    file = root.parent / os.fsdecode(b"old \xff\n.txt")
    file.write_text(record())
    (done,) = import_files(root, [file], None, print)
    assert done.id == "0000"
    assert len(done.sentence.splitlines()) == 1
    assert json.loads((root / "history" / "0000" / "attempt.json").read_text())["source"].startswith("old ")


@pytest.mark.parametrize("rest", ["", "\n--- Insights ---\nIt forgets.\n", "\n20240131_235959\nIt forgets.\n"])
def test_name_and_success_may_stand_above_the_table(rest: str) -> None:
    found = parse(f"Name: wider_net\nSuccess: False\n\n{HEADER}\n{PLAIN}\n{rest}".encode())
    assert (found.name, found.success, [line.name for line in found.lines]) == ("wider_net", False, ["plain_net"])
    assert found.insights == ("It forgets." if rest else None)
    assert not [oddity for oddity in found.oddities if "name" in oddity or "success" in oddity or "table" in oddity]


def test_a_record_without_name_and_table_has_a_row_of_its_own(root: Path) -> None:
    bring(root, one=record(), two="Ideas\n--- Insights ---\nKeep it short.\n")
    assert [row.name for row in listing.rows(history.read(root)) if row.id == "0001"] == [None]


def test_a_folder_is_refused_and_the_files_after_it_are_not(root: Path) -> None:
    file = root.parent / "good.txt"
    file.write_text(record())
    folder, good = import_files(root, [root.parent, file], None, print)
    assert (folder.id, folder.refused) == (None, "Is a directory")
    assert good.id == "0000"


def test_one_number_with_two_names_is_two_rows(root: Path) -> None:
    done = bring(root, blocks=(
        "        name  Compress  Context Recall\n0        foo    0.1         0.2\n\n"
        "        name  Memorize  Noisy Recall\n0        qux    0.4         0.5\n"
    ))["blocks"]  # fmt: skip
    table = (root / "history" / (done.id or "") / "results.csv").read_text().splitlines()[1:]
    assert table == ["foo,0.1,0.2,,,,", "qux,,,,0.4,0.5,"]


def test_many_rows_of_one_name_are_told_once(root: Path) -> None:
    rows = "".join(f"same,{i / 3000:.5f},0.5\n" for i in range(3000))
    done = bring(root, same=f"name,Compress,Memorize\n{rows}")["same"]
    assert done.notes.count("the name 'same' stands there with different values: all 3000 are kept") == 1
    assert len((root / "history" / (done.id or "") / "results.csv").read_text().splitlines()) == 3001


def test_a_file_that_cannot_be_read_is_named_and_the_next_is_imported(root: Path, tmp_path: Path) -> None:
    file = tmp_path / "good.csv"
    file.write_text("name,Compress,Memorize\nfoo,0.1,0.5\n")
    bad, good = import_files(root, [Path("/proc/self/mem"), file], None, print)
    assert (bad.sentence, good.id) == ("/proc/self/mem: refused: Input/output error", "0000")


def test_a_folder_that_is_no_project_takes_no_import(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"there is no .*variants: --root needs the project's variants/"):
        list(import_files(tmp_path, [tmp_path / "good.csv"], None, print))
    assert not (tmp_path / "history").exists()


@pytest.mark.parametrize("mark", ["Insights:", "## Insights", "**Insights**", "**Insights:**", "Insight"])
@pytest.mark.parametrize("stamp", ["20240131_235959", ""])
def test_insights_may_have_a_heading_in_other_words(mark: str, stamp: str) -> None:
    found = parse(record(stamp=stamp, insights=f"{mark}\n{INSIGHT}").encode())
    assert (found.insights, found.name, [line.name for line in found.lines]) == (INSIGHT, "wider_net", ["plain_net", "other (v2) net"])
    cut = f"The table first.\n\n{mark}\n{INSIGHT}"  # no prose before it is lost
    assert (parse(record(insights=cut).encode()).insights or "").startswith("The table first.")


@pytest.mark.parametrize("mark", ["## Takeaways", "What we learned:", "Insight"])
def test_without_time_stamp_and_mark_insights_begin_below_the_table(mark: str) -> None:
    text = f"Name: gate\n\nModel,Compress,Memorize\na,0.1,0.2\nb,broken\n\n{mark}\n\nThe gate helps."
    found = parse(text.encode())
    assert found.insights is not None
    assert found.insights.endswith("The gate helps.")
    assert (found.name, [line.name for line in found.lines]) == ("gate", ["a"])
    assert "this line of the table is not understood: 'b,broken'" in found.oddities


@pytest.mark.parametrize(
    ("text", "insights"),
    [
        ("Name: gate\nSuccess: false\n\nInsights:\nIt explodes.", "It explodes."),
        ("Name: gate\n\nIt explodes.\n\nSuccess: false", "It explodes."),
        ("Experiment: `gate`\nSuccess: **no**\n\nTraceback\n\nInsight: It explodes.", "It explodes."),
        ("Insights\n\nIt explodes.\n\n- **Name**: gate\n- **Success**: false", "It explodes."),
    ],
)
def test_a_failed_attempt_needs_no_table(text: str, insights: str) -> None:
    found = parse(text.encode())
    assert (found.name, found.success, found.insights, found.lines) == ("gate", False, insights, ())


def test_the_only_row_without_a_name_has_that_of_the_record() -> None:
    found = parse(record("Compress: 0.1, Memorize: 0.2", header="").encode())
    assert found.lines == (Line("wider_net", {"Compress": "0.1", "Memorize": "0.2"}),)


SIX = "Compress  Context Recall  Fuzzy Recall  Memorize  Noisy Recall  Selective Copy"
PRINTED = f"""      name  {SIX}
0  plain  0.1  0.2  0.3  0.4  0.5  0.6
1  wider  0.2  0.3  0.4  0.5  0.6  0.7

20250618_093000

--- Insights ---
It keeps more.

Name
wider

Success
true
"""


def by_task_of(shift: int) -> str:
    return "\n".join(f"{task}: 0.{digit + shift}" for digit, task in enumerate(SIX.split("  "), 1))


@pytest.mark.parametrize(
    ("dressed", "told"),
    [
        ("\n".join(f"> {line}" for line in PRINTED.split("\n")), "every line begins with a mark of quotation"),
        ("\n".join(f"2025-06-18 09:30:07,123 search.loop INFO {line}" for line in PRINTED.split("\n")), "the time and level of a log"),
        ("\n".join(f"[2025-06-18T09:30:07+00:00] INFO: {line}" for line in PRINTED.split("\n")), "the time and level of a log"),
        (PRINTED.replace("wider", "\x1b[32mwider\x1b[0m").replace("Name", "\x1b[1mName\x1b[0m").replace("keeps", "ke\u202eeps"), "colours and characters"),
        (PRINTED.replace("--- Insights ---", "Insights\n--------").replace("Name", "Name\n----").replace("Success", "Success\n======="), ""),
        (PRINTED.replace("20250618_093000\n", "").replace("--- Insights ---", "Insights:"), ""),
        (PRINTED.replace("20250618_093000", "Timestamp: 2025-06-18T11:30:00.5+02:00").replace("Name\nwider", "Name = *wider* (ours)"), ""),
        ("Time: 2025-06-18 09:30:00Z\n" + PRINTED.replace("20250618_093000", "").replace("--- Insights ---", "# Insights"), ""),
        (PRINTED.replace("\ntrue", "\nSuccessful \u2705").replace("Name\n", "Architecture:\n"), ""),
        (PRINTED.replace("\n\n2025", "\nmean  0.15  0.25  0.35  0.45  0.55  0.65\n\u0394  0.1  0.1  0.1  0.1  0.1  0.1\n\n2025"), "worked out of others"),
        (PRINTED.replace("\n\n2025", f"\n\nChange against plain:\n      name  {SIX}\n1  wider  0.1  0.1  0.1  0.1  0.1  0.1\n\n2025"), "holds no scores"),
        (f"Final losses\n      name  {SIX}\n1  wider  0.9  0.9  0.9  0.9  0.9  0.9\n\n" + PRINTED, "the table under 'Final losses' holds no scores"),
        (PRINTED.replace("It keeps more.", f"It keeps more.\n\n{SIX}\n0.9  0.9  0.9  0.9  0.9  0.9"), ""),
        (PRINTED.replace("      name ", "   id name ").replace("0  plain", "0   7   plain").replace("1  wider", "1   12   wider"), ""),
    ],
)  # fmt: skip
def test_what_a_log_a_mail_or_a_printer_did_to_a_record_changes_nothing(dressed: str, told: str) -> None:
    found = parse(dressed.encode())
    assert [(line.name, line.values["Compress"], line.values["Selective Copy"]) for line in found.lines] == [("plain", "0.1", "0.6"), ("wider", "0.2", "0.7")]
    assert (found.name, found.success) == ("wider", True)
    assert (found.insights or "").startswith("It keeps more.")
    assert (found.stamp is None) is ("20" not in dressed.replace("0.20", ""))
    assert told in " ".join(found.oddities)


@pytest.mark.parametrize("over", ["{}\n", "Model: {}\n", "### {}\n", "[{}]\n", ""])
def test_systems_one_after_the_other_are_not_mixed(over: str) -> None:
    blocks = [over.format(name) + by_task_of(shift) + ("" if over else f"\nName: {name}, dtype: float64") for shift, name in enumerate(("plain", "wider"))]
    found = parse(("\n\n".join(blocks) + "\n\n--- Insights ---\nIt keeps more.\n\nName\nwider\n\nSuccess\ntrue\n").encode())
    assert [(line.name, line.values["Compress"], line.values["Selective Copy"]) for line in found.lines] == [("plain", "0.1", "0.6"), ("wider", "0.2", "0.7")]


def test_a_wrapped_table_of_losses_is_hidden_whole() -> None:
    losses = "Final losses\n    name  Compress  Memorize  \\\n0  wider      0.91      0.92\n\n   Noisy Recall  Selective Copy\n0        0.93  0.94\n\n"
    found = parse((losses + PRINTED).encode())
    assert [(line.name, line.values["Compress"], line.values["Noisy Recall"]) for line in found.lines] == [("plain", "0.1", "0.5"), ("wider", "0.2", "0.6")]


def test_two_records_are_refused_in_a_log_too() -> None:
    with pytest.raises(BadInput, match="2 records"):
        parse("\n".join(f"2025-06-18 09:30:07 INFO {line}" for line in (PRINTED + PRINTED).split("\n")).encode())


def test_a_time_before_all_time_is_none() -> None:
    found = parse(PRINTED.replace("20250618_093000", "0001-01-01 00:00:00+02:00").encode())
    assert found.stamp is None
    assert "the time stamp 0001-01-01 00:00:00+02:00 is no time" in found.oddities


def test_a_caption_that_tells_how_it_was_trained_hides_no_table() -> None:
    for caption in ("All systems trained with cross-entropy loss for 200 epochs:", "Changes of June"):
        table = f"{caption}\n    name  Compress  Memorize  \\\n0  plain      0.11      0.12\n\n   Noisy Recall  Selective Copy\n0        0.13  0.14\n"
        assert [line.values for line in parse(table.encode()).lines] == [{"Compress": "0.11", "Memorize": "0.12", "Noisy Recall": "0.13", "Selective Copy": "0.14"}]


def test_the_number_of_a_row_is_no_score_where_a_wrapped_block_lacks_a_cell() -> None:
    found = parse(b"    name  Compress  Memorize  \\\n0  plain      0.11      0.12\n\n   Noisy Recall  Selective Copy\n0        0.13\n")
    assert [line.values for line in found.lines] == [{"Compress": "0.11", "Memorize": "0.12"}]
    assert any("is not understood: '0 0.13'" in oddity for oddity in found.oddities)


@pytest.mark.parametrize("column", ["", "index"])
def test_where_a_first_column_counts_the_next_one_names(column: str) -> None:
    found = parse(f"| {column} | Candidate | Compress | Memorize |\n|---|---|---|---|\n| 0 | plain | 0.1 | 0.2 |\n| 1 | wider | 0.2 | 0.3 |\n".encode())
    assert [line.name for line in found.lines] == ["plain", "wider"]
    found = parse(f"| {column} | Params | Compress | Memorize |\n|---|---|---|---|\n| 0 | 512 | 0.1 | 0.2 |\n".encode())
    assert [line.name for line in found.lines] != ["512"]


@pytest.mark.parametrize("labels", ["\nName\nwider\n\nSuccess\ntrue\n", ""])
@pytest.mark.parametrize("mark", ["--- Insights ---", "# Insights", "Insights:"])
@pytest.mark.parametrize("named", [True, False])
def test_a_table_below_the_insights_is_read_and_no_part_of_them(mark: str, labels: str, named: bool) -> None:
    header = "   Compress  Context Recall  Fuzzy Recall  Memorize  Noisy Recall  Selective Copy"
    row = ("0  wider  " if named else "0  ") + "  ".join(f"0.{digit}" for digit in range(1, 7))
    found = parse(f"{mark}\nIt keeps more.\nMemorize gains.\n{labels}\n{header}\n{row}\n20250618_093000\n".encode())
    assert [line.values["Memorize"] for line in found.lines] == ["0.4"]
    assert (found.insights or "").strip() == "It keeps more.\nMemorize gains."
    assert found.stamp is not None
    assert (found.name, found.success) == (("wider", True) if labels else (None, None))
    assert "the score table stands below the mark of the insights" in found.oddities


def test_tasks_a_line_each_below_the_insights_are_a_table_where_all_six_follow_one_another() -> None:
    tasks = ["compression: 0.1", "in-context-recall: 0.2", "fuzzy-in-context-recall: 0.3", "memorization: 0.4", "noisy-in-context-recall: 0.5"]
    text = "name: wider\nsuccess: no\ninsights:\n  it fell apart\nresults:\n  " + "\n  ".join(tasks)
    assert parse(text.encode()).lines == ()
    whole = parse((text + "\n  selective-copying: 0.6\n").encode())
    assert [(line.name, line.values["Selective Copy"]) for line in whole.lines] == [("wider", "0.6")]
    assert (whole.name, whole.success) == ("wider", False)


def test_differences_are_no_scores() -> None:
    for line in ("Prediction: Compress +0.01, Memorize +0.02", "Compress  -0.01\nMemorize  +0.02"):
        assert parse(record(line, header="").encode()).lines == ()


def test_several_records_without_time_stamps_are_refused() -> None:
    one = "Name: {}\nModel,Compress,Memorize\na,0.1,0.2\n\nInsights:\nx\n\nName: {}\nSuccess: true\n\n"
    with pytest.raises(BadInput, match=r"several records, each with its name and insights \(the last is 'two'\)"):
        parse((one.format("one", "one") + one.format("two", "two")).encode())


@pytest.mark.parametrize("text", ['{"Compress": 0.1, "name": "x"}', '[{"a": 1}]', '{"Compress": 0.1}\n{"Compress": 0.2}\n'])
def test_json_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="it is JSON"):
        parse(text.encode())


def test_what_can_be_no_accuracy_leads_no_prompt(root: Path) -> None:
    bring(root, one=record(PLAIN, OTHER.replace("0.420000", "42.00000")))
    assert [row.name for row in policy.reported(policy.imported(history.read(root)))] == ["plain_net"]


def test_the_record_that_the_help_shows_is_one() -> None:
    shown = RECORD_FORM.replace("\b\n", "\n").partition("\n\nColumns stand")[0]
    found = parse(shown.encode())
    assert [(line.name, line.values["Compress"]) for line in found.lines] == [("delta_net", "0.48"), ("wider_state", "0.51")]
    assert (found.name, found.success, str(found.insights).strip()) == ("wider_state", True, "What was learned, in any words.")


PARTS = ["Compress", "Memorize (%)", "Context Recall", "name", "Name: x", "Success", "true", "Insights:", "--- Insights ---", "20240131_235959",
         "a", "0.1", "48%", "0.2 \u00b1 0.1", "...", "nan", "task", "{", "}", "'", "**", "\\", "\\\\", "%", "[3 rows x 7 columns]", "\x00",
         "\n", "\n", "\n", "\n\n", ",", ",", ";", "\t", "|", "|", "  ", "  ", " ", ":", "-", "\u2502", "```"]  # fmt: skip


@given(st.lists(st.sampled_from(PARTS), max_size=60))
def test_no_text_is_more_than_refused(parts: list[str]) -> None:
    with suppress(BadInput):
        found = parse("".join(parts).encode())
        assert all(is_plain(value) for line in found.lines for value in line.values.values())


def test_many_labels_take_no_time() -> None:
    assert parse(b"name: x\n" * 20_000).name == "x"
