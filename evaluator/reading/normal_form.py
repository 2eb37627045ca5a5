"""A variant's source with all that does not compute taken off, to tell a copy from a new operator."""

import ast
import builtins
from collections.abc import Mapping

from evaluator.reading.names import Names

PUBLIC = ("delta_rule", "projections", "parameters", "recurrence")


def normal_form(source: str) -> str:
    """The source without comments, docstrings and annotations, its own names numbered: equal for a renamed copy."""
    tree = ast.parse(source)
    aliases = dict(Names(tree).modules)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            aliases |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    tree.body = [node for node in tree.body if not isinstance(node, ast.Import | ast.ImportFrom)]
    return ast.unparse(ast.fix_missing_locations(_Plain(aliases).visit(tree)))


class _Plain(ast.NodeTransformer):
    """Strips what does not compute and numbers names in the order in which they come."""

    def __init__(self, aliases: Mapping[str, str]) -> None:
        self.aliases = aliases
        self.numbers: dict[str, str] = {}

    def _number(self, name: str) -> str:
        if name in PUBLIC or hasattr(builtins, name):
            return name
        if name in self.aliases:
            return self.aliases[name].replace(".", "__")
        return self.numbers.setdefault(name, f"n{len(self.numbers)}")

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.Name(self._number(node.id), node.ctx)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        return ast.arg(self._number(node.arg))

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        return self.visit(ast.Assign([node.target], node.value)) if node.value else ast.Pass()

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.name = self._number(node.name)
        node.returns = None
        node.body = _without_docstring(node.body)
        return self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        node.name = self._number(node.name)
        node.body = _without_docstring(node.body)
        return self.generic_visit(node)

    def visit_Module(self, node: ast.Module) -> ast.AST:
        node.body = _without_docstring(node.body)
        return self.generic_visit(node)


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    kept = [s for s in body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))]
    return kept or [ast.Pass()]
