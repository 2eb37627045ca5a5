"""The house rules that a machine can read: who may import whom, how long a module is, what it says of itself."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import variants
from agent.records import COLUMN_OF
from evaluator.operator import MAX_NAME, RESERVED, read_sources
from evaluator.reading import source, vocabulary

PROJECT = Path(__file__).parent.parent
AGENT = {"jinja2", "openai", "httpx2", "pydantic", "rich", "typer"}
EVALUATOR = {"numpy", "ray", "torch", "triton"}
VARIANT = {name.split(".")[0] for name in vocabulary.MODULES}
LONGEST = {"agent": 300, "evaluator": 400}


def modules(package: str) -> list[Path]:
    return sorted((PROJECT / package).rglob("*.py"))


def trees(package: str) -> Iterator[tuple[Path, ast.Module]]:
    for path in modules(package):
        yield path, ast.parse(path.read_text(encoding="utf-8"))


def imported(tree: ast.Module) -> set[str]:
    """The top-level names of everything that is imported absolutely, wherever in the file."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize(
    ("package", "allowed"),
    [("agent", AGENT | {"agent"}), ("evaluator", EVALUATOR | {"evaluator"})],
)
def test_a_package_imports_only_what_it_may(package: str, allowed: set[str]) -> None:
    for path, tree in trees(package):
        strangers = imported(tree) - set(sys.stdlib_module_names) - allowed
        assert not strangers, f"{path.relative_to(PROJECT)} imports {', '.join(sorted(strangers))}"


def test_a_variant_imports_only_the_field() -> None:
    for path, tree in trees("variants"):
        assert imported(tree) <= VARIANT, path.relative_to(PROJECT)


def relations() -> dict[str, set[str]]:
    """Module of the agent -> the modules and packages of the agent that it imports."""
    found: dict[str, set[str]] = {}
    for path, tree in trees("agent"):
        name = path.relative_to(PROJECT / "agent").parts[0].removesuffix(".py")
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.level == len(path.relative_to(PROJECT / "agent").parts):
                names = [node.module] if node.module else [alias.name for alias in node.names]
                found.setdefault(name, set()).update(part.split(".")[0] for part in names if part)
    return {name: targets - {name} for name, targets in found.items()}


def test_the_loop_is_where_the_parts_meet() -> None:
    uses = relations()
    assert {name for name, targets in uses.items() if "cli" in targets} == {"__main__"}
    assert {name for name, targets in uses.items() if "loop" in targets} == {"cli"}
    assert uses.get("records", set()) | uses.get("errors", set()) | uses.get("files", set()) == set()


def test_no_two_modules_of_the_agent_import_each_other() -> None:
    uses, done = relations(), set[str]()
    while len(done) < len(uses):
        free = {name for name, targets in uses.items() if name not in done and targets & set(uses) <= done}
        assert free, f"a circle among {', '.join(sorted(set(uses) - done))}"
        done |= free


@pytest.mark.parametrize("package", ["agent", "evaluator"])
def test_a_module_is_short_and_says_what_it_is_for(package: str) -> None:
    for path, tree in trees(package):
        lines = path.read_text(encoding="utf-8").count("\n")
        assert lines <= LONGEST[package], f"{path.relative_to(PROJECT)} has {lines} lines"
        assert ast.get_docstring(tree), f"{path.relative_to(PROJECT)} does not say what it is for"


def test_no_module_is_a_drawer_for_everything() -> None:
    drawers = {"utils", "util", "common", "helpers", "manager", "factory", "registry", "misc", "base"}
    assert not drawers & {path.stem for package in ("agent", "evaluator") for path in modules(package)}


def test_both_sides_write_the_same_table() -> None:
    from evaluator.protocol import COLUMNS as MEASURED

    assert list(MEASURED.items()) == list(COLUMN_OF.items())


def test_the_contract_names_every_word_that_no_declaration_may_have() -> None:
    contract = (PROJECT / "prompts" / "contract.md").read_text(encoding="utf-8")
    declared = next(part for part in contract.split("\n\n") if part.startswith("A declared name"))
    assert all(f"`{word}`" in declared for word in RESERVED)
    assert f"at most {MAX_NAME} characters" in declared


@pytest.mark.parametrize("name", ["delta_net", "gla"])
def test_agent_and_evaluator_mean_the_same_source(name: str) -> None:
    theirs = source.digest(read_sources(PROJECT / "variants" / name))
    assert variants.digest(PROJECT, name) == theirs
    assert variants.digest(PROJECT, "../history") is None
