"""Finds the named places of a delta rule in its source, by what statements do, not how they are spelled.

The chunkwise form has one statement that cuts the inputs into chunks, statements that normalise q and k, one
that makes the intra-chunk weights, and a loop over chunks that computes an error, an output and the state.
"""

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

PLACES = {
    "inputs": "q, k, v and beta as they come in, [B, H, T, .]",
    "chunks": "q, k, v and beta in chunks, before they are normalised",
    "keys": "q and k after their normalisation",
    "weights": "the intra-chunk weights",
    "setup": "before the loop, beside the initial state",
    "error": "the error of a chunk's predictions",
    "output": "the output of a chunk",
    "write": "what is written, after the output was read",
    "before_update": "the state before a chunk's update",
    "update": "the state after a chunk's update",
}


class NoPlace(Exception):
    """A source in which a mechanism does not find its place; one sentence."""


@dataclass(frozen=True)
class Spot:
    """A gap between two lines: `line` is the index of the line after it, `indent` its depth in columns."""

    line: int
    indent: int


@dataclass(frozen=True)
class Loop:
    """The loop over chunks and the zip that feeds it."""

    node: ast.For
    zipped: tuple[ast.Name, ...]  # the tensors that are cut into chunks
    targets: tuple[ast.Name, ...]  # their chunks, then whatever else the zip gives
    output: str
    state: str


def delta_rule_of(tree: ast.Module) -> ast.FunctionDef:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == "delta_rule":
            return node
    raise NoPlace("The source defines no delta_rule.")


def spot(tree: ast.Module, place: str) -> Spot:
    """Where code for `place` goes. Raises NoPlace."""
    function = delta_rule_of(tree)
    if place in {"inputs", "chunks", "keys"}:
        return _before_or_after_chunking(function, place)
    loop = loop_of(function)
    body = loop.node.body
    if place == "setup":
        return _after(function.body[_index_of(function.body, loop.state, function.body.index(loop.node))])
    if place == "weights":
        name = weights_of(loop, error_of(loop))
        return _after(function.body[_index_of(function.body, name, function.body.index(loop.node))])
    output_at = _index_of(body, loop.output, len(body))
    updates = [i for i, node in enumerate(body) if loop.state in stored(node)]
    if place == "output":
        return _after(body[output_at])
    if place == "error":
        first_output = next(i for i, node in enumerate(body) if loop.output in stored(node))
        return _after(body[_index_of(body, error_of(loop), first_output)])
    if place == "update":
        return _after(body[max(updates[-1], output_at)])
    later = [i for i in updates if i > output_at]
    if not later or any(error_of(loop) in loaded(body[i]) for i in updates if i < output_at):
        raise NoPlace("The state is not written after the output was read.")
    return _after(body[output_at]) if place == "write" else _before(body[later[0]])


def loop_of(function: ast.FunctionDef) -> Loop:
    """The last loop of the function that appends an output and carries a state."""
    for node in reversed(function.body):
        if isinstance(node, ast.For) and (output := _appended(node)):
            zipped, targets = _zip_of(function, node)
            return Loop(node, zipped, targets, output, _state_of(function, node))
    raise NoPlace("There is no loop over chunks that appends an output.")


def error_of(loop: Loop) -> str:
    """The name of the error: the first difference in the loop that holds a product with the state."""
    for node in loop.node.body:
        names = stored(node)
        if len(names) == 1 and any(_predicts(part, loop.state) for part in ast.walk(node)):
            return names[0]
    raise NoPlace("The loop computes no error of the form value - key @ state.")


def weights_of(loop: Loop, error: str) -> str:
    """The name of the intra-chunk weights of all chunks: what multiplies the error in the output."""
    chunk_of = dict(zip((t.id for t in loop.targets), (z.id for z in loop.zipped), strict=False))
    for node in loop.node.body:
        if loop.output not in stored(node):
            continue
        for part in ast.walk(node):
            if not (isinstance(part, ast.BinOp) and isinstance(part.op, ast.MatMult)):
                continue
            if isinstance(part.left, ast.Name) and error in loaded(part.right):
                return _known(chunk_of, part.left.id)
    raise NoPlace("The output holds no product of intra-chunk weights and the error.")


def chunk_names(loop: Loop) -> dict[str, str]:
    """Name of a tensor -> name of one chunk of it."""
    return {z.id: t.id for z, t in zip(loop.zipped, loop.targets, strict=False)}


def stored(node: ast.AST) -> list[str]:
    """Names that a statement assigns."""
    return [n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]


def loaded(node: ast.AST) -> set[str]:
    """Names that a piece of code reads."""
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}


def _before_or_after_chunking(function: ast.FunctionDef, place: str) -> Spot:
    body = function.body
    at = next((i for i, node in enumerate(body) if "k" in stored(node) and "to_chunks" in loaded(node)), None)
    if at is None:
        raise NoPlace("No statement cuts k into chunks by to_chunks.")
    if place != "keys":
        return _before(body[at]) if place == "inputs" else _after(body[at])
    reader = next(
        (i for i, node in enumerate(body) if i > at and "k" in loaded(node) - _own(node)), len(body)
    )
    return _after(body[max(i for i in range(at, reader) if i == at or _own(body[i]))])


def _own(node: ast.stmt) -> set[str]:
    """`k` where a statement only maps q or k, so that it still belongs to their normalisation."""
    return {"k"} if {"q", "k"} & set(stored(node)) else set()


def _index_of(body: Sequence[ast.stmt], name: str, end: int) -> int:
    found = [i for i, node in enumerate(body[:end]) if name in stored(node)]
    if not found:
        raise NoPlace(f"No statement of its own assigns {name}.")
    return found[-1]


def _appended(node: ast.For) -> str | None:
    calls = [s.value for s in node.body if isinstance(s, ast.Expr) and isinstance(s.value, ast.Call)]
    for call in calls:
        if isinstance(call.func, ast.Attribute) and call.func.attr == "append" and len(call.args) == 1:
            return call.args[0].id if isinstance(call.args[0], ast.Name) else None
    return None


def _state_of(function: ast.FunctionDef, node: ast.For) -> str:
    """The name that begins as zeros and is assigned again in the loop; `S` where there are several."""
    zeros = [
        name
        for statement in function.body[: function.body.index(node)]
        for name in stored(statement)
        if any(isinstance(n, ast.Attribute) and "zeros" in n.attr for n in ast.walk(statement))
    ]
    found = [name for name in dict.fromkeys(zeros) if any(name in stored(s) for s in node.body)]
    if not found:
        raise NoPlace("The loop carries no state that begins as zeros.")
    return "S" if "S" in found else found[0]


def _zip_of(function: ast.FunctionDef, node: ast.For) -> tuple[tuple[ast.Name, ...], tuple[ast.Name, ...]]:
    targets = node.target.elts if isinstance(node.target, ast.Tuple) else []
    for call in _iterated(function, node):
        first = call.args[0] if call.args else None
        if not (isinstance(first, ast.Starred) and isinstance(first.value, ast.GeneratorExp)):
            continue
        tensors = first.value.generators[0].iter
        if isinstance(tensors, ast.Tuple):
            return _names(tensors.elts), _names(targets)
    raise NoPlace("The loop does not run over zip(*(x.unbind(1) for x in (...))).")


def _iterated(function: ast.FunctionDef, node: ast.For) -> Iterator[ast.Call]:
    if isinstance(node.iter, ast.Call):
        yield node.iter
    if isinstance(node.iter, ast.Name):
        for statement in function.body:
            if node.iter.id in stored(statement) and isinstance(statement, ast.Assign):
                yield from [statement.value] if isinstance(statement.value, ast.Call) else []


def _names(nodes: Sequence[ast.expr]) -> tuple[ast.Name, ...]:
    if not all(isinstance(node, ast.Name) for node in nodes):
        raise NoPlace("The loop over chunks takes more than names apart.")
    return tuple(node for node in nodes if isinstance(node, ast.Name))


def _predicts(node: ast.AST, state: str) -> bool:
    """Whether a node is a difference whose right side is a product with the state."""
    if not (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub)):
        return False
    products = [n for n in ast.walk(node.right) if isinstance(n, ast.BinOp) and isinstance(n.op, ast.MatMult)]
    return any(state in loaded(product) for product in products)


def _known(chunk_of: dict[str, str], name: str) -> str:
    if name not in chunk_of:
        raise NoPlace(f"{name} is no chunk of a tensor that the loop runs over.")
    return chunk_of[name]


def _before(node: ast.stmt) -> Spot:
    return Spot(node.lineno - 1, node.col_offset)


def _after(node: ast.stmt) -> Spot:
    return Spot(node.end_lineno or node.lineno, node.col_offset)
