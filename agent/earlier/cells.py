"""The cells of a printed table: how they are told apart, and what a number in one may look like."""

import csv
import re
from decimal import Decimal

MARKS = ("|", "\t", "", ",", ";")  # what stands between cells; "": two blanks or more
ABSENT = ("", "...", "none", "-", "--", "nan", "n/a", "na", "null", "\u2013", "\u2014")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")  # more is no score, and would be written out in as many figures
_DECIMAL_COMMA = r"0?,[0-9]+|[0-9]{1,3},[0-9]{1,2}(?=[^%]*%$)"  # elsewhere it may stand between thousands
_WRITTEN = re.compile(rf"({_NUMBER.pattern}|{_DECIMAL_COMMA})\s*(%?)\s*(?:(?:\u00b1|\+/?-)\s*[0-9.,]+\s*(%?)|\([0-9.,%\s\u00b1+/-]+\)\s*(%?))?")
_DRESS = " \t*`\u2020\u2021\u00a7^\u2191\u2193"  # daggers and arrows, too


def letters_of(cell: str) -> str:
    return re.sub("[^a-z0-9]", "", cell.lower())


def cells_of(line: str, mark: str) -> list[str]:
    if mark == "|":
        return [cell.strip(" \t*`") for cell in line.strip().removeprefix("|").removesuffix("|").split("|")]
    if mark == "\t":
        return [cell.strip() for cell in line.split("\t")]
    if mark == "":
        return re.split(r"\s{2,}", line.strip().removesuffix("\\").strip())
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=mark), [])]
    except csv.Error:  # a cell without end is none of a table
        return []


def is_rule(line: str) -> bool:
    """Whether a line is empty or rules a table alone."""
    return not line.strip(" \t|:+=-")


def number_in(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def is_plain(text: str) -> bool:
    return _NUMBER.fullmatch(text) is not None


def plain(text: str) -> str:
    """`48.1%`, `48,1 %`, `48.1 \u00b1 0.2%`, `0.481 \u00b1 0.2%`, `0,481` or `**0.481**` as `0.481`; whatever else it is as it stands."""
    match = None if is_plain(text) else _WRITTEN.fullmatch(text.strip(_DRESS))
    if match is None:
        return text
    number = match[1].replace(",", ".")
    percent = match[2] or ((match[3] or match[4]) and abs(Decimal(number)) > 1)  # else it is the spread alone that is one
    return format(Decimal(number).scaleb(-2), "f") if percent else number


def is_cell(text: str) -> bool:
    """Whether it holds a number or a word for none, also one written as no printer of tables writes it."""
    if text.lower() in ABSENT or number_in(text) is not None:
        return True
    return any(map(str.isdigit, text)) and not any(map(str.isalpha, text))
