"""Words that the rules share."""

import ast


def kind(node: ast.AST) -> str:
    """Of a statement, for a sentence."""
    name = type(node).__name__
    return {"Expr": "an expression", "If": "an if statement", "For": "a loop", "Global": "a global statement"}.get(
        name, f"a statement of kind {name}"
    )


def no_import(name: str) -> str:
    """That a module may not be imported."""
    return f"import of {name}; a variant imports torch, torch.nn.functional, math, einops, functools, itertools, collections.abc, triton or typing alone"


def no_attribute(name: str) -> str:
    """That an attribute may not be used."""
    if name.rpartition(".")[2] in ("grad", "backward"):
        return f"{name}, which may lead to gradients that are not the operator's; torch.autograd.grad gives those of values computed here"
    return f"{name}, which reaches beyond values of tensors; compute from q, k, v, beta and what is declared alone"
