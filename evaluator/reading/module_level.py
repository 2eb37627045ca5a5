"""The rules for what stands at module level: imports, constants, functions, autograd functions; and the signature."""

import ast
import difflib
from collections.abc import Iterator

from evaluator.reading.names import Finding, Names, hints, targets
from evaluator.reading.sentences import kind
from evaluator.reading.vocabulary import PURE


class ModuleLevel:
    """The statements of a file, one after the other; `form` is naive or triton."""

    def __init__(self, names: Names, form: str) -> None:
        self.names, self.form = names, form

    def findings(self) -> Iterator[Finding]:
        """What is wrong with them."""
        for statement in self.names.tree.body:
            yield from self._top(statement)
        yield from self._signature()

    def _top(self, node: ast.stmt) -> Iterator[Finding]:
        if isinstance(node, ast.Import | ast.ImportFrom):
            return
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            return
        if isinstance(node, ast.FunctionDef):
            yield from self._function(node)
        elif isinstance(node, ast.ClassDef):
            yield from self._class(node)
        elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            yield from self._assignment(node)
        else:
            yield node.lineno, f"{kind(node)} at module level; only imports, constants and functions may stand there"

    def _assignment(self, node: ast.Assign | ast.AnnAssign) -> Iterator[Finding]:
        bound = targets(node)
        if not all(isinstance(t, ast.Name) for t in bound):
            yield node.lineno, "an assignment to something of another module; a variant changes nothing outside itself"
            return
        if [t.id for t in bound if isinstance(t, ast.Name)] == ["__all__"]:
            return
        assert node.value is not None
        if not self._constant(node.value) and not self._table(node.value, bound):
            yield node.lineno, "a module-level value that is no constant; compute it inside a function (no state is kept)"

    def _table(self, node: ast.expr, bound: list[ast.expr]) -> bool:
        """A list or dict of constants that the whole file only reads from."""
        parts = node.elts if isinstance(node, ast.List) else [*node.keys, *node.values] if isinstance(node, ast.Dict) else None
        read = {t.id for t in bound if isinstance(t, ast.Name)} <= self.names.only_read
        return read and parts is not None and all(part and self._constant(part) for part in parts)

    def _constant(self, node: ast.expr) -> bool:
        """Immutable and cheap: literals, tuples, arithmetic, names, math functions, lambdas."""
        match node:
            case ast.Constant() | ast.Name():
                return True
            case ast.Attribute(value=value):  # of a value: a method remembers what it is bound to
                return self._constant(value)
            case ast.Lambda(args=args):
                return all(map(self._constant, _defaults(args)))
            case ast.Tuple(elts=parts) | ast.JoinedStr(values=parts):
                return all(map(self._constant, parts))
            case ast.UnaryOp(operand=inner):
                return self._constant(inner)
            case ast.BinOp(left=left, right=right):
                return self._constant(left) and self._constant(right)
            case ast.Subscript(value=value, slice=index):
                return self._constant(value) and self._constant(index)
            case ast.Call(func=func, args=args, keywords=keywords):
                values = [*args, *(k.value for k in keywords)]
                return self._pure(func) and all(map(self._constant, values))
        return False

    def _pure(self, func: ast.expr) -> bool:
        if isinstance(func, ast.Name) and func.id in PURE and func.id not in self.names.bound:
            return True
        dotted = self.names.imported(func) or self.names.dotted(func) or ""
        return dotted in PURE or dotted.startswith("math.")

    def _function(self, node: ast.FunctionDef) -> Iterator[Finding]:
        for decorator in node.decorator_list:
            target = decorator.func if isinstance(decorator, ast.Call) else decorator
            allowed = ("triton.jit", "triton.autotune", "triton.heuristics")
            if self.names.dotted(target) not in allowed or self.form != "triton":
                yield node.lineno, f"a decorator on {node.name}; only triton.jit (in triton.py) may stand there"
        for default in _defaults(node.args):
            if not self._constant(default):
                yield node.lineno, f"a default argument of {node.name} that is no constant; compute it inside"
        for hint in hints(node):
            if any(isinstance(inner, ast.Call) for inner in ast.walk(hint)):
                yield node.lineno, f"a call in an annotation of {node.name}; annotations only name types"

    def _class(self, node: ast.ClassDef) -> Iterator[Finding]:
        bases = [self.names.dotted(base) or self.names.imported(base) for base in node.bases]
        if bases not in (["torch.autograd.Function"], ["torch.autograd.function.Function"]) or node.keywords or node.decorator_list:
            yield node.lineno, f"the class {node.name}; the only classes here are subclasses of torch.autograd.Function"
            return
        for inner in node.body:
            if isinstance(inner, ast.Pass) or (isinstance(inner, ast.Expr) and isinstance(inner.value, ast.Constant)):
                continue
            if not isinstance(inner, ast.FunctionDef) or inner.name not in ("forward", "backward", "setup_context"):
                yield inner.lineno, f"{kind(inner)} in {node.name}; only forward, backward and setup_context may stand there"
                continue
            if not all(map(self._constant, _defaults(inner.args))):
                yield inner.lineno, f"a default argument of {node.name}.{inner.name} that is no constant; compute it inside"
            decorators = [d.id if isinstance(d, ast.Name) else self.names.dotted(d) for d in inner.decorator_list]
            once = {"once_differentiable", "torch.autograd.function.once_differentiable"}
            if not decorators or not set(decorators) <= {"staticmethod", *once} or "staticmethod" in self.names.bound:
                yield inner.lineno, f"{node.name}.{inner.name} must be a plain staticmethod"

    def _signature(self) -> Iterator[Finding]:
        functions = {n.name: n for n in self.names.tree.body if isinstance(n, ast.FunctionDef)}
        found = functions.get("delta_rule")
        if not found:
            near = difflib.get_close_matches("delta_rule", functions, 1)
            line, meant = (functions[near[0]].lineno, f"; is {near[0]} meant for it?") if near else (1, "")
            yield line, f"no function delta_rule(q, k, v, beta, *, chunk_size){meant}"
            return
        args = found.args
        first = [a.arg for a in [*args.posonlyargs, *args.args]][:4]
        every = {a.arg for a in [*args.args, *args.kwonlyargs]}
        if first != ["q", "k", "v", "beta"] or ("chunk_size" not in every and not args.kwarg):
            yield found.lineno, "delta_rule must take (q, k, v, beta, *, chunk_size) and what the variant declares"


def _defaults(args: ast.arguments) -> list[ast.expr]:
    return [*args.defaults, *(d for d in args.kw_defaults if d)]
