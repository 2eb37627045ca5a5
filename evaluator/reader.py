"""The rules that a variant's syntax tree is held to: what it may import, name, define and change."""

import ast
import builtins
import math
import re
from collections.abc import Iterator
from types import ModuleType

import torch

from evaluator.vocabulary import (
    BUILTINS,
    DENIED,
    DRAWS,
    MODULES,
    NOT_IN_KERNELS,
    OTHERS,
    PURE,
    TORCH_CLASSES,
    TORCH_PREFIXES,
)

MAX_TEXT = 2000  # characters of one literal string
MAX_TABLE = 64  # numbers in one literal

Finding = tuple[int, str]


class Reader:
    """One source file: what its import names stand for, what it binds, and what it does with both."""

    def __init__(self, tree: ast.Module, form: str) -> None:
        self.tree, self.form = tree, form
        self.modules: dict[str, str] = {}  # local name -> the module it is
        self.classes = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
        self.constants: set[str] = set()  # names bound at module level
        self.contexts: set[int] = set()  # nodes that name the ctx of an autograd function
        self.drawing: set[int] = set()  # nodes inside parameters(), where random numbers are born
        self.bound = set(_bound(tree))
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                self.modules |= {a.asname: a.name for a in node.names if a.asname}
                self.modules |= {top: top for a in node.names if not a.asname for top in [a.name.split(".")[0]]}
            if isinstance(node, ast.ImportFrom) and node.module:
                dotted = {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
                self.modules |= {local: name for local, name in dotted.items() if name in MODULES}
        self.contexts = {id(name) for top in tree.body if isinstance(top, ast.ClassDef) for name in _contexts(top)}
        for top in tree.body:
            if isinstance(top, ast.FunctionDef) and top.name == "parameters":
                self.drawing = {id(inner) for inner in ast.walk(top)}

    def findings(self) -> Iterator[Finding]:
        for statement in self.tree.body:
            yield from self._top(statement)
        for node in ast.walk(self.tree):
            yield from self._node(node)
        yield from self._twice_bound()
        yield from self._signature()

    # --- what stands at module level ---

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
            yield node.lineno, f"{_kind(node)} at module level; only imports, constants and functions may stand there"

    def _assignment(self, node: ast.Assign | ast.AnnAssign) -> Iterator[Finding]:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        names = [t for target in targets for t in (target.elts if isinstance(target, ast.Tuple) else [target])]
        if not all(isinstance(t, ast.Name) for t in names):
            yield node.lineno, "an assignment to something of another module; a variant changes nothing outside itself"
            return
        self.constants |= {t.id for t in names if isinstance(t, ast.Name)}
        if "__all__" in self.constants and len(names) == 1:
            return
        assert node.value is not None
        if not self._constant(node.value):
            yield node.lineno, "a module-level value that is no constant; compute it inside a function (no state is kept)"

    def _constant(self, node: ast.expr) -> bool:
        """Immutable and cheap: literals, tuples, arithmetic, names, math functions, lambdas."""
        match node:
            case ast.Constant() | ast.Name() | ast.Attribute():
                return True
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
        if isinstance(func, ast.Name):
            return func.id in PURE and func.id not in self.bound
        dotted = self._dotted(func) or ""
        return dotted in PURE or dotted.startswith("math.")

    def _function(self, node: ast.FunctionDef) -> Iterator[Finding]:
        for decorator in node.decorator_list:
            target = decorator.func if isinstance(decorator, ast.Call) else decorator
            allowed = ("triton.jit", "triton.autotune", "triton.heuristics")
            if self._dotted(target) not in allowed or self.form != "triton":
                yield node.lineno, f"a decorator on {node.name}; only triton.jit (in triton.py) may stand there"
        for default in _defaults(node.args):
            if not self._constant(default):
                yield node.lineno, f"a default argument of {node.name} that is no constant; compute it inside"
        hints = [a.annotation for a in ast.walk(node.args) if isinstance(a, ast.arg) and a.annotation]
        for hint in [*hints, *([node.returns] if node.returns else [])]:
            if any(isinstance(inner, ast.Call) for inner in ast.walk(hint)):
                yield node.lineno, f"a call in an annotation of {node.name}; annotations only name types"

    def _class(self, node: ast.ClassDef) -> Iterator[Finding]:
        bases = [self._dotted(base) for base in node.bases]
        named = [base.id for base in node.bases if isinstance(base, ast.Name)]
        if not (bases == ["torch.autograd.Function"] or named == ["Function"]) or node.keywords or node.decorator_list:
            yield node.lineno, f"the class {node.name}; the only classes here are subclasses of torch.autograd.Function"
            return
        for inner in node.body:
            if isinstance(inner, ast.Pass) or (isinstance(inner, ast.Expr) and isinstance(inner.value, ast.Constant)):
                continue
            if not isinstance(inner, ast.FunctionDef) or inner.name not in ("forward", "backward", "setup_context"):
                yield inner.lineno, f"{_kind(inner)} in {node.name}; only forward, backward and setup_context may stand there"
                continue
            decorators = [d.id if isinstance(d, ast.Name) else self._dotted(d) for d in inner.decorator_list]
            once = {"once_differentiable", "torch.autograd.function.once_differentiable"}
            if not decorators or not set(decorators) <= {"staticmethod", *once}:
                yield inner.lineno, f"{node.name}.{inner.name} must be a plain staticmethod"

    def _signature(self) -> Iterator[Finding]:
        found = [n for n in self.tree.body if isinstance(n, ast.FunctionDef) and n.name == "delta_rule"]
        if not found:
            yield 1, "no function delta_rule(q, k, v, beta, *, chunk_size)"
            return
        args = found[-1].args
        first = [a.arg for a in [*args.posonlyargs, *args.args]][:4]
        every = {a.arg for a in [*args.args, *args.kwonlyargs]}
        if first != ["q", "k", "v", "beta"] or ("chunk_size" not in every and not args.kwarg):
            yield found[-1].lineno, "delta_rule must take (q, k, v, beta, *, chunk_size) and what the variant declares"

    def _twice_bound(self) -> Iterator[Finding]:
        """A module's name stands for that module everywhere, else the rules would be those of another one."""
        for node, name, stands_for in _bindings(self.tree):
            if name in self.modules and stands_for != self.modules[name]:
                yield node.lineno, f"the module {name} bound to something else; choose another name"

    # --- what stands anywhere ---

    def _node(self, node: ast.AST) -> Iterator[Finding]:
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, _no_import(a.name)) for a in names if a.name not in MODULES)
            case ast.ImportFrom():
                yield from self._import_from(node)
            case ast.Name():
                yield from self._name(node)
            case ast.Attribute():
                yield from self._attribute(node)
            case ast.MatchClass(kwd_attrs=attributes):
                yield from ((node.lineno, _no_attribute(a)) for a in attributes if a.startswith("_") or a in DENIED)
            case ast.Global() | ast.Nonlocal():
                yield node.lineno, f"{_kind(node)}; an operator keeps nothing between calls, pass values as arguments"
            case ast.AsyncFunctionDef() | ast.Await() | ast.AsyncFor() | ast.AsyncWith():
                yield node.lineno, "asynchronous code; an operator is a plain function"
            case ast.ClassDef() if node not in self.tree.body:
                yield node.lineno, f"the class {node.name} inside a function; define functions only"
            case ast.Assign() | ast.AugAssign() | ast.AnnAssign() | ast.Delete() | ast.For() | ast.NamedExpr():
                yield from self._targets(node)
            case ast.Constant(value=str() | bytes() as text) if len(text) > MAX_TEXT and not self._docstring(node):
                yield node.lineno, f"a literal of {len(text)} characters; code holds no tables"
            case ast.Tuple() | ast.List() | ast.Set() | ast.Dict():
                size = sum(isinstance(inner, ast.Constant) for inner in ast.walk(node))
                if size > MAX_TABLE:
                    yield node.lineno, f"a literal of {size} values; code holds no tables, at most {MAX_TABLE} values"

    def _docstring(self, node: ast.Constant) -> bool:
        first = [n.body[0] for n in ast.walk(self.tree) if isinstance(n, ast.Module | ast.FunctionDef | ast.ClassDef) and n.body]
        return any(isinstance(s, ast.Expr) and s.value is node for s in first)

    def _import_from(self, node: ast.ImportFrom) -> Iterator[Finding]:
        module = node.module or "."
        if node.level or module not in MODULES:
            yield node.lineno, _no_import(module)
            return
        for alias in node.names:
            dotted = f"{module}.{alias.name}"
            if alias.name == "*":
                yield node.lineno, f"from {module} import *; name what is used"
            elif dotted not in MODULES and (reason := self._refused(module, alias.name, node)):
                yield node.lineno, reason

    def _name(self, node: ast.Name) -> Iterator[Finding]:
        name = node.id
        if name in self.modules:
            if isinstance(node.ctx, ast.Load) and id(node) not in self._bases:
                yield node.lineno, f"the module {name} used as a value; only its functions may be used"
        elif name in self.classes and self._bases.get(id(node)) != "apply":
            yield node.lineno, f"the class {name} used as a value, which could keep things between calls; only {name}.apply may be used"
        elif name.startswith("__") and name != "__all__":
            yield node.lineno, f"{name}; names with two leading underscores are not for variants"
        elif hasattr(builtins, name) and name not in BUILTINS:
            yield node.lineno, f"{name}(); an operator only computes with tensors"
        elif name not in self.bound and name not in BUILTINS:
            yield node.lineno, f"the unknown name {name}"

    @property
    def _bases(self) -> dict[int, str]:
        """Nodes of which an attribute is taken, and which."""
        if not hasattr(self, "_base_ids"):
            self._base_ids = {id(n.value): n.attr for n in ast.walk(self.tree) if isinstance(n, ast.Attribute)}
        return self._base_ids

    def _attribute(self, node: ast.Attribute) -> Iterator[Finding]:
        dotted = self._dotted(node)
        if dotted is None:
            if node.attr in ("format", "format_map") and not _plain_format(node.value):
                yield node.lineno, f"{node.attr}, whose text can name attributes; write an f-string"
            if node.attr.startswith("_") or node.attr in DENIED:
                yield node.lineno, _no_attribute(node.attr)
            return
        module, _, name = dotted.rpartition(".")
        if dotted in MODULES:
            if id(node) not in self._bases:
                yield node.lineno, f"the module {dotted} used as a value; only its functions may be used"
        elif module in MODULES:
            reason = self._refused(module, name, node)
            yield from [(node.lineno, reason)] if reason else []
        elif name.startswith("_") or (name in DENIED and not module.startswith("triton")):
            yield node.lineno, _no_attribute(name)

    def _refused(self, module: str, name: str, node: ast.AST) -> str | None:
        """Why MODULE.NAME may not be used, None if it may."""
        where = f"{module}.{name}"
        if where == "torch.autograd.grad":  # of values that the operator computed itself
            return None
        if name.startswith("_") or (module.startswith("torch") and name in DENIED):
            return _no_attribute(where)
        if module in OTHERS:
            return None if name in OTHERS[module] else f"{where}; of {module} only {', '.join(sorted(OTHERS[module]))}"
        if module.startswith("triton"):
            return _no_attribute(where) if name in NOT_IN_KERNELS else None
        if module in ("typing", "collections.abc"):
            return None if name[0].isupper() and name != "ForwardRef" else f"{where}; of {module} only types"
        if module == "math":
            return None if hasattr(math, name) else f"{where}, which does not exist"
        if name in DRAWS and module == "torch":
            return None if id(node) in self.drawing else f"{where}; random numbers come only from parameters(..., generator)"
        if name.startswith(TORCH_PREFIXES) and module == "torch":
            return _no_attribute(where)
        found = getattr(_module(module), name, None)
        if found is None or isinstance(found, ModuleType):
            return f"{where}; of torch only its functions on tensors may be used"
        if isinstance(found, type) and name not in TORCH_CLASSES:
            return f"{where}; of torch only its functions on tensors may be used"
        known = callable(found) or isinstance(found, torch.dtype | float | torch.layout | torch.memory_format)
        return None if known else f"{where}; of torch only its functions on tensors may be used"

    def _dotted(self, node: ast.AST) -> str | None:
        """The full name of an attribute of an imported module, `F.silu` as torch.nn.functional.silu."""
        if isinstance(node, ast.Name):
            return self.modules.get(node.id)
        if isinstance(node, ast.Attribute):
            base = self._dotted(node.value)
            return f"{base}.{node.attr}" if base else None
        return None

    def _targets(self, node: ast.AST) -> Iterator[Finding]:
        targets = node.targets if isinstance(node, ast.Assign | ast.Delete) else [node.target]  # type: ignore[attr-defined]
        flat = [t for target in targets for t in ast.walk(target)]
        for target in flat:
            if not isinstance(getattr(target, "ctx", None), ast.Store | ast.Del):
                continue
            if isinstance(target, ast.Attribute) and id(target.value) not in self.contexts:
                yield target.lineno, f"an assignment to the attribute {target.attr}; an operator keeps nothing between calls"
            root = target
            while isinstance(root, ast.Subscript | ast.Attribute):
                root = root.value
            if isinstance(root, ast.Name) and root is not target and root.id in self.constants | set(self.modules):
                yield root.lineno, f"a change of the module-level {root.id}; an operator keeps nothing between calls"


def _contexts(node: ast.ClassDef) -> Iterator[ast.Name]:
    """Where the methods of a class name their first argument, ctx, and never bind it to something else."""
    for method in node.body:
        if isinstance(method, ast.FunctionDef) and method.args.args:
            own = method.args.args[0].arg
            named = [n for n in ast.walk(method) if isinstance(n, ast.Name) and n.id == own]
            if own == "ctx" and all(isinstance(n.ctx, ast.Load) for n in named):
                yield from named


def _defaults(args: ast.arguments) -> list[ast.expr]:
    return [*args.defaults, *(d for d in args.kw_defaults if d)]


def _bound(tree: ast.AST) -> Iterator[str]:
    yield from (name for _, name, _ in _bindings(tree))


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


def _plain_format(text: ast.expr) -> bool:
    """Whether a text to fill in only names what is filled in, not attributes or items of it."""
    literal = isinstance(text, ast.Constant) and isinstance(text.value, str)
    return literal and not re.search(r"{[^}:!]*[.\[]|:[^}]*{", text.value)  # type: ignore[attr-defined]


def _module(dotted: str) -> object:
    found: object = torch
    for part in dotted.split(".")[1:]:
        found = getattr(found, part)
    return found


def _kind(node: ast.AST) -> str:
    name = type(node).__name__
    return {"Expr": "an expression", "If": "an if statement", "For": "a loop", "Global": "a global statement"}.get(
        name, f"a statement of kind {name}"
    )


def _no_import(name: str) -> str:
    return f"import of {name}; a variant imports torch, torch.nn.functional, math, einops, triton or typing alone"


def _no_attribute(name: str) -> str:
    return f"{name}, which reaches beyond values of tensors; compute from q, k, v, beta and what is declared alone"
