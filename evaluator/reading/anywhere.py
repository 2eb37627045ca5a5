"""The rules for what stands anywhere: which names and attributes may be used, what may be assigned to."""

import ast
import builtins
import math
import re
from collections.abc import Iterator
from types import ModuleType

import torch

from evaluator.reading.names import Finding, Names
from evaluator.reading.sentences import kind, no_attribute, no_import
from evaluator.reading.vocabulary import (
    BUILTINS,
    DENIED,
    DRAWS,
    DRAWS_IN_PLACE,
    MODULES,
    NOT_IN_KERNELS,
    OF_NAMED_TUPLES,
    OTHERS,
    TORCH_CLASSES,
    TORCH_PREFIXES,
)

MAX_TEXT = 2000  # characters of one literal string
MAX_TABLE = 64  # numbers in one literal


class Anywhere:
    """Every node of a file."""

    def __init__(self, names: Names) -> None:
        self.names = names

    def findings(self) -> Iterator[Finding]:
        """What is wrong with them."""
        for node in ast.walk(self.names.tree):
            yield from self._node(node)
        yield from self._twice_bound()

    def _twice_bound(self) -> Iterator[Finding]:
        """A module's name stands for that module everywhere, else the rules would be those of another one."""
        for node, name, stands_for in self.names.bindings:
            if name in self.names.modules and stands_for != self.names.modules[name]:
                yield node.lineno, f"the module {name} bound to something else; choose another name"

    def _node(self, node: ast.AST) -> Iterator[Finding]:
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, no_import(a.name)) for a in names if a.name not in MODULES)
            case ast.ImportFrom():
                yield from self._import_from(node)
            case ast.Name():
                yield from self._name(node)
            case ast.Subscript(ctx=ast.Store() | ast.Del()):
                yield from self._changed(node)
            case ast.Attribute():
                yield from self._attribute(node)
                yield from self._changed(node)
            case ast.MatchClass(kwd_attrs=attributes):
                yield from ((node.lineno, no_attribute(a)) for a in attributes if a.startswith("_") or a in DENIED)
            case ast.Global() | ast.Nonlocal():
                yield node.lineno, f"{kind(node)}; an operator keeps nothing between calls, pass values as arguments"
            case ast.AsyncFunctionDef() | ast.Await() | ast.AsyncFor() | ast.AsyncWith():
                yield node.lineno, "asynchronous code; an operator is a plain function"
            case ast.ClassDef() if node not in self.names.tree.body:
                yield node.lineno, f"the class {node.name} inside a function; define functions only"
            case ast.Constant(value=str() | bytes() as text) if len(text) > MAX_TEXT and not self._docstring(node):
                yield node.lineno, f"a literal of {len(text)} characters; code holds no tables"
            case ast.Tuple() | ast.List() | ast.Set() | ast.Dict():
                size = sum(isinstance(inner, ast.Constant) for inner in ast.walk(node))
                if size > MAX_TABLE:
                    yield node.lineno, f"a literal of {size} values; code holds no tables, at most {MAX_TABLE} values"

    def _docstring(self, node: ast.Constant) -> bool:
        first = [n.body[0] for n in ast.walk(self.names.tree) if isinstance(n, ast.Module | ast.FunctionDef | ast.ClassDef) and n.body]
        return any(isinstance(s, ast.Expr) and s.value is node for s in first)

    def _import_from(self, node: ast.ImportFrom) -> Iterator[Finding]:
        module = node.module or "."
        if node.level or module not in MODULES:
            yield node.lineno, no_import(module)
            return
        for alias in node.names:
            dotted = f"{module}.{alias.name}"
            if alias.name == "*":
                yield node.lineno, f"from {module} import *; name what is used"
            elif dotted not in MODULES and (reason := self._refused(module, alias.name, node)):
                yield node.lineno, reason

    def _name(self, node: ast.Name) -> Iterator[Finding]:
        name = node.id
        if name in self.names.modules:
            if isinstance(node.ctx, ast.Load) and id(node) not in self.names.bases:
                yield node.lineno, f"the module {name} used as a value; only its functions may be used"
        elif name in self.names.classes and self.names.bases.get(id(node)) != "apply":
            yield node.lineno, f"the class {name} used as a value, which could keep things between calls; only {name}.apply may be used"
        elif name.startswith("__") and name != "__all__":
            yield node.lineno, f"{name}; names with two leading underscores are not for variants"
        elif hasattr(builtins, name) and name not in BUILTINS:
            yield node.lineno, f"{name}(); an operator only computes with tensors"
        elif name not in self.names.bound and name not in BUILTINS:
            yield node.lineno, f"the unknown name {name}"

    def _attribute(self, node: ast.Attribute) -> Iterator[Finding]:
        dotted = self.names.dotted(node)
        if dotted is None:
            if node.attr in ("format", "format_map") and not _plain_format(node.value):
                yield node.lineno, f"{node.attr}, whose text can name attributes; write an f-string"
            drawn = node.attr in DRAWS_IN_PLACE and id(node) in self.names.drawing
            private = node.attr.startswith("_") and node.attr not in OF_NAMED_TUPLES
            if private or (node.attr in DENIED and not drawn):
                yield node.lineno, no_attribute(node.attr)
            return
        module, _, name = dotted.rpartition(".")
        if dotted in MODULES:
            if id(node) not in self.names.bases:
                yield node.lineno, f"the module {dotted} used as a value; only its functions may be used"
        elif module in MODULES:
            reason = self._refused(module, name, node)
            yield from [(node.lineno, reason)] if reason else []
        elif name.startswith("_") or (name in DENIED and not module.startswith("triton")):
            yield node.lineno, no_attribute(name)

    def _refused(self, module: str, name: str, node: ast.AST) -> str | None:
        """Why MODULE.NAME may not be used, None if it may."""
        where = f"{module}.{name}"
        if where in ("torch.autograd.grad", "torch.func.grad"):  # of values that the operator computed itself
            return None
        if where == "torch.Generator" and id(node) in self.names.types:  # the one that parameters() is given
            return None
        if name.startswith("_") or (module.startswith("torch") and name in DENIED):
            return no_attribute(where)
        if module in OTHERS:
            return None if name in OTHERS[module] else f"{where}; of {module} only {', '.join(sorted(OTHERS[module]))}"
        if module.startswith("triton"):
            return no_attribute(where) if name in NOT_IN_KERNELS else None
        if module in ("typing", "collections.abc"):
            return None if name[0].isupper() and name != "ForwardRef" else f"{where}; of {module} only types"
        if module == "math":
            return None if hasattr(math, name) else f"{where}, which does not exist"
        if name in DRAWS and module == "torch":
            return None if id(node) in self.names.drawing else f"{where}; random numbers come only from parameters(..., generator)"
        if name.startswith(TORCH_PREFIXES) and module == "torch":
            return no_attribute(where)
        found = getattr(_module(module), name, None)
        if found is None or isinstance(found, ModuleType):
            return f"{where}; of torch only its functions on tensors may be used"
        if isinstance(found, type) and name not in TORCH_CLASSES:
            return f"{where}; of torch only its functions on tensors may be used"
        known = callable(found) or isinstance(found, torch.dtype | float | torch.layout | torch.memory_format)
        return None if known else f"{where}; of torch only its functions on tensors may be used"

    def _changed(self, node: ast.Attribute | ast.Subscript) -> Iterator[Finding]:
        """Whatever is assigned to, or deleted: by a statement, a loop, a comprehension, with ... as."""
        if isinstance(node.ctx, ast.Load):
            return
        if isinstance(node, ast.Attribute) and id(node.value) not in self.names.contexts:
            yield node.lineno, f"an assignment to the attribute {node.attr}; an operator keeps nothing between calls"
        root: ast.expr = node
        while isinstance(root, ast.Subscript | ast.Attribute):
            root = root.value
        if isinstance(root, ast.Name) and root.id in self.names.constants | set(self.names.modules):
            yield root.lineno, f"a change of the module-level {root.id}; an operator keeps nothing between calls"


def _plain_format(text: ast.expr) -> bool:
    """Whether a text to fill in only names what is filled in, not attributes or items of it."""
    literal = isinstance(text, ast.Constant) and isinstance(text.value, str)
    return literal and not re.search(r"{[^}:!]*[.\[]|:[^}]*{", text.value)  # type: ignore[attr-defined]


def _module(dotted: str) -> object:
    found: object = torch
    for part in dotted.split(".")[1:]:
        found = getattr(found, part)
    return found
