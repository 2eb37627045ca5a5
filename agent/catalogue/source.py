"""Edits of a variant's source that keep the rest of it as it stands, comments included."""

import ast
import builtins
from collections.abc import Mapping, Sequence

from .places import NoPlace, delta_rule_of, loop_of, spot

WIDTH = 110


def parsed(text: str) -> ast.Module:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise NoPlace(f"The source does not parse: {type(error).__name__}.") from error


def insert(text: str, place: str, code: Sequence[str]) -> str:
    """Put lines of code at a named place."""
    where = spot(parsed(text), place)
    return insert_lines(text, where.line, [" " * where.indent + line for line in code])


def insert_lines(text: str, at: int, lines: Sequence[str]) -> str:
    old = text.split("\n")
    return "\n".join([*old[:at], *lines, *old[at:]])


def insert_text(text: str, line: int | None, column: int | None, piece: str) -> str:
    """Put `piece` where the syntax tree says (line from 1, column in UTF-8 bytes)."""
    lines = text.split("\n")
    row = lines[(line or 1) - 1].encode()
    lines[(line or 1) - 1] = (row[:column] + piece.encode() + row[column:]).decode()
    return "\n".join(lines)


def fresh(text: str, name: str) -> str:
    """`name`, or `name_2` and so on where the source has it already."""
    tree = parsed(text)
    taken = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)} | set(dir(builtins))
    taken |= {n.arg for n in ast.walk(tree) if isinstance(n, ast.arg)} | set(functions(tree))
    free = (f"{name}_{i}" if i > 1 else name for i in range(1, 1000))
    return next(candidate for candidate in free if candidate not in taken)


def functions(tree: ast.Module) -> dict[str, ast.FunctionDef]:
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}


def add_chunk(text: str, tensor: str, chunk: str) -> str:
    """Let the loop over chunks also run over `tensor` [B * H, N, ...], each of its chunks called `chunk`."""
    loop = loop_of(delta_rule_of(parsed(text)))
    last = loop.zipped[-1]
    text = insert_text(text, last.end_lineno, last.end_col_offset, f", {tensor}")
    target = loop_of(delta_rule_of(parsed(text))).targets[len(loop.zipped) - 1]
    return _hoisted(insert_text(text, target.end_lineno, target.end_col_offset, f", {chunk}"))


def _hoisted(text: str) -> str:
    """A loop whose line has become too long gets its zip on a line of its own."""
    node = loop_of(delta_rule_of(parsed(text))).node
    lines = text.split("\n")
    if len(lines[node.lineno - 1]) <= WIDTH or not isinstance(node.iter, ast.Call):
        return text
    if node.lineno != node.iter.end_lineno:
        return text
    name = fresh(text, "chunks")
    zipped = ast.get_source_segment(text, node.iter) or ""
    indent = " " * node.col_offset
    header = lines[node.lineno - 1].replace(f"in {zipped}:", f"in {name}:")
    lines[node.lineno - 1 : node.lineno] = [f"{indent}{name} = {zipped}", header]
    return "\n".join(lines)


def declare(text: str, function: str, arguments: str, entries: Mapping[str, str]) -> str:
    """Add entries to what `projections` or `parameters` returns; where there is none it is written."""
    for name, code in entries.items():
        tree = parsed(text)
        node = functions(tree).get(function)
        if node is None:
            body = [f"def {function}({arguments}):", f'    return {{"{name}": {code}}}', "", ""]
            text = insert_lines(text, _top_of(delta_rule_of(tree)), body)
            continue
        returned = node.body[-1].value if isinstance(node.body[-1], ast.Return) else None
        if not isinstance(returned, ast.Dict) or not returned.values:
            raise NoPlace(f"{function} does not end by returning a dictionary written out.")
        last = returned.values[-1]
        piece = f',\n{" " * (node.body[-1].col_offset + 8)}"{name}": {code}'
        text = insert_text(text, last.end_lineno, last.end_col_offset, piece)
    return text


def add_arguments(text: str, names: Sequence[str]) -> str:
    """Add keyword-only arguments to delta_rule."""
    for name in names:
        arguments = delta_rule_of(parsed(text)).args
        if arguments.kwarg or arguments.vararg:
            raise NoPlace("delta_rule takes its arguments in bulk.")
        last: ast.AST = (arguments.kwonlyargs or arguments.args)[-1]
        defaults = arguments.kw_defaults if arguments.kwonlyargs else arguments.defaults
        last = defaults[-1] if defaults and defaults[-1] is not None else last
        piece = f", {name}" if arguments.kwonlyargs else f", *, {name}"
        text = insert_text(text, getattr(last, "end_lineno", 1), getattr(last, "end_col_offset", 0), piece)
    return text


def add_function(text: str, code: str) -> str:
    """Put a helper before delta_rule."""
    return insert_lines(text, _top_of(delta_rule_of(parsed(text))), [*code.strip("\n").split("\n"), "", ""])


def drop_function(text: str, name: str) -> str:
    """Without one function of the module and the blank lines before it."""
    node = functions(parsed(text)).get(name)
    if node is None:
        return text
    lines = text.split("\n")
    first = _top_of(node)
    while first > 0 and not lines[first - 1].strip():
        first -= 1
    return "\n".join([*lines[:first], *lines[node.end_lineno or len(lines) :]]).rstrip("\n") + "\n"


def with_docstring(text: str, docstring: str) -> str:
    tree = parsed(text)
    lines = text.split("\n")
    first = tree.body[0]
    old = (
        isinstance(first, ast.Expr)
        and isinstance(first.value, ast.Constant)
        and isinstance(first.value.value, str)
    )
    rest = lines[first.end_lineno or 1 :] if old else ["", *lines]
    return "\n".join([f'"""{docstring}"""', *rest])


def check_names(text: str) -> None:
    """Raise NoPlace where delta_rule reads a name that nothing defines."""
    tree = parsed(text)
    function = delta_rule_of(tree)
    known = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    known |= (
        {n.arg for n in ast.walk(function) if isinstance(n, ast.arg)}
        | set(functions(tree))
        | set(dir(builtins))
    )
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            known |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    unknown = {n.id for n in ast.walk(function) if isinstance(n, ast.Name)} - known
    if unknown:
        raise NoPlace(f"The source does not define {', '.join(sorted(unknown))}.")


def _top_of(node: ast.FunctionDef) -> int:
    return min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)]) - 1
