"""What the names of one source file stand for: modules, classes, constants, the context of an autograd function."""

import ast
from collections.abc import Iterator

from evaluator.reading.vocabulary import MODULES, READERS

Finding = tuple[int, str]
"""A line, and what is wrong there."""

Binding = ast.stmt | ast.expr | ast.arg | ast.excepthandler | ast.pattern


def _bindings(tree: ast.AST) -> Iterator[tuple[Binding, str, str | None]]:
    """Whatever gives a name a value: where, the name, and what it is imported from, None for all else."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                yield node, name, None
            case ast.arg(arg=name) | ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                yield node, name, None
            case ast.Import(names=aliases):
                for alias in aliases:
                    top = alias.name.split(".")[0]
                    yield node, alias.asname or top, alias.name if alias.asname else top
            case ast.ImportFrom(names=aliases):
                yield from ((node, alias.asname or alias.name, f"{node.module}.{alias.name}") for alias in aliases)
            case ast.ExceptHandler(name=str() as name) | ast.MatchAs(name=str() as name) | ast.MatchStar(name=str() as name):
                yield node, name, None
            case ast.MatchMapping(rest=str() as name):
                yield node, name, None


class Names:
    """Of a parsed source file."""

    def __init__(self, tree: ast.Module) -> None:
        self.tree = tree
        self.bindings = list(_bindings(tree))
        self.bound = {name for _, name, _ in self.bindings}
        self.modules: dict[str, str] = {}  # local name -> the module it is
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                self.modules |= {a.asname: a.name for a in node.names if a.asname}
                self.modules |= {top: top for a in node.names if not a.asname for top in [a.name.split(".")[0]]}
            if isinstance(node, ast.ImportFrom) and node.module:
                dotted = {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
                self.modules |= {local: name for local, name in dotted.items() if name in MODULES}
        self.classes = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
        self.constants = {t.id for statement in tree.body for t in targets(statement) if isinstance(t, ast.Name)}
        self.contexts = {id(name) for top in tree.body if isinstance(top, ast.ClassDef) for name in _contexts(top)}
        self.drawing = {  # where random numbers are born
            id(inner)
            for top in tree.body
            if isinstance(top, ast.FunctionDef) and top.name == "parameters"
            for inner in ast.walk(top)
        }
        self.types = {  # named in annotations
            id(inner)
            for top in tree.body
            if isinstance(top, ast.FunctionDef)
            for hint in hints(top)
            if _names_types(hint)
            for inner in ast.walk(hint)
        }
        reads = {id(name) for node in ast.walk(tree) for name in self._read_from(node)}
        used = [n for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)]
        self.only_read = self.constants - {n.id for n in used if id(n) not in reads}
        """Module-level names that nothing could change: they are only ever gone through or looked up in."""
        self.bases = {id(n.value): n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
        """Nodes of which an attribute is taken, and which."""

    def imported(self, node: ast.AST) -> str | None:
        """What a name stands for that is imported from a module and bound to nothing else."""
        found = {stands_for for _, name, stands_for in self.bindings if isinstance(node, ast.Name) and name == node.id}
        return found.pop() if len(found) == 1 else None

    def _read_from(self, node: ast.AST) -> list[ast.expr]:
        match node:
            case ast.Subscript(value=value, ctx=ast.Load()) | ast.For(iter=value) | ast.comprehension(iter=value):
                return [value]
            case ast.Compare(ops=[ast.In() | ast.NotIn()], comparators=values):
                return values
            case ast.Call(func=ast.Attribute(value=value, attr="items" | "keys" | "values" | "get")):
                return [value]
            case ast.Call(func=func, args=args) if (func.id if isinstance(func, ast.Name) else self.dotted(func)) in READERS - self.bound:
                return args
        return []

    def dotted(self, node: ast.AST) -> str | None:
        """The full name of an attribute of an imported module, `F.silu` as torch.nn.functional.silu."""
        if isinstance(node, ast.Name):
            return self.modules.get(node.id)
        if isinstance(node, ast.Attribute):
            base = self.dotted(node.value)
            return f"{base}.{node.attr}" if base else None
        return None


def targets(node: ast.stmt) -> list[ast.expr]:
    """What an assignment binds, tuples taken apart; nothing where it is no assignment."""
    if not isinstance(node, ast.Assign | ast.AnnAssign):
        return []
    found = node.targets if isinstance(node, ast.Assign) else [node.target]
    return [t for target in found for t in (target.elts if isinstance(target, ast.Tuple) else [target])]


def hints(function: ast.FunctionDef) -> list[ast.expr]:
    """The annotations of its arguments and its result."""
    found = [a.annotation for a in ast.walk(function.args) if isinstance(a, ast.arg)]
    return [hint for hint in (*found, function.returns) if hint]


def _names_types(hint: ast.expr) -> bool:
    """Whether it does nothing else, as a call or a name bound on the way would."""
    allowed = ast.Name, ast.Attribute, ast.Subscript, ast.Tuple, ast.BinOp, ast.BitOr, ast.Constant, ast.Load
    return all(isinstance(inner, allowed) for inner in ast.walk(hint))


def _contexts(node: ast.ClassDef) -> Iterator[ast.Name]:
    """Where the methods of a class name their first argument, ctx, and never bind it to something else."""
    for method in node.body:
        if isinstance(method, ast.FunctionDef) and method.args.args:
            bound = [name for _, name, _ in _bindings(method)]
            if method.args.args[0].arg == "ctx" and bound.count("ctx") == 1:
                yield from (n for n in ast.walk(method) if isinstance(n, ast.Name) and n.id == "ctx")
