"""One published mechanism as a parametrised edit of a delta rule's source."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from string import Template

from .places import NoPlace, chunk_names, delta_rule_of, error_of, loop_of, stored, weights_of
from .source import (
    WIDTH,
    add_arguments,
    add_chunk,
    add_function,
    check_names,
    declare,
    drop_function,
    fresh,
    functions,
    insert,
    parsed,
)

_CALLED = re.compile(r"\$([A-Za-z_0-9]+)")


@dataclass(frozen=True)
class Mechanism:
    """What is changed, where, and why it should help.

    `code` maps a place of `places.PLACES` to lines. In a line `$S`, `$u`, `$o`, `$A`, `$q_i`, `$k_i` are the
    source's own names for state, error, output, intra-chunk weights and chunks of q and k; `$value` is the
    parameter; any other `$name` is a name of the mechanism's own, changed where the source has it already.
    """

    slug: str
    title: str
    kind: str  # the part of the operator that it changes
    code: Mapping[str, Sequence[str]]
    rationale: str
    hypothesis: str
    reference: str
    prediction: Mapping[str, float]
    values: Sequence[float] = ()  # of the parameter, the default first
    unless: str = "(?!)"  # a source that matches has the mechanism, or something that it would undo
    parameters: Mapping[str, str] = field(default_factory=dict)
    projections: Mapping[str, str] = field(default_factory=dict)
    chunked: Sequence[str] = ()  # tensors [B * H, N, ...] whose chunks `$name_i` the code reads in the loop
    helper: str = ""


@dataclass(frozen=True)
class Choice:
    """A mechanism with one value of its parameter."""

    mechanism: Mechanism
    value: float | None

    @property
    def slug(self) -> str:
        values = self.mechanism.values
        if self.value is None or self.value == values[0]:
            return self.mechanism.slug
        return f"{self.mechanism.slug}_{self.value:g}".replace(".", "p").replace("-", "m")

    @property
    def title(self) -> str:
        return Template(self.mechanism.title).substitute(value=_number(self.value))


def choices(mechanism: Mechanism) -> list[Choice]:
    return [Choice(mechanism, value) for value in mechanism.values or (None,)]


def apply_choice(text: str, choice: Choice) -> str:
    """The source with the mechanism in it. Raises NoPlace where it has no place or is there already."""
    mechanism = choice.mechanism
    if re.search(mechanism.unless, _code_of(text)):
        raise NoPlace(f"The source has {mechanism.slug} or its opposite already.")
    names = _own_names(text, mechanism) | {"value": _number(choice.value)}
    text = _declared(text, mechanism, names)
    for place, lines in mechanism.code.items():
        names |= _source_names(text)
        text = insert(text, place, _said([_filled(line, names) for line in lines], mechanism))
        text = _chunked(text, mechanism, names)
    text = drop_function(text, "recurrence")  # it is that of the parent
    check_names(text)
    return text


def _declared(text: str, mechanism: Mechanism, names: Mapping[str, str]) -> str:
    """The source with the mechanism's projections, parameters and helper."""
    projections, parameters = _renamed(mechanism.projections, names), _renamed(mechanism.parameters, names)
    text = declare(text, "projections", "num_heads, head_dim", projections)
    text = declare(text, "parameters", "num_heads, head_dim, generator", parameters)
    text = add_arguments(text, [*parameters, *projections])
    name = mechanism.helper.split("(")[0].removeprefix("def ")
    return add_function(text, mechanism.helper) if name and name not in functions(parsed(text)) else text


def _chunked(text: str, mechanism: Mechanism, names: dict[str, str]) -> str:
    """Let the loop run over the mechanism's tensors too, as soon as they are there; adds to `names`."""
    for tensor in mechanism.chunked:
        name = names.get(tensor, tensor)
        function = delta_rule_of(parsed(text))
        if f"{tensor}_i" in names or name not in stored(function):
            continue
        known = chunk_names(loop_of(function)).get(name)
        if known is None:
            known = fresh(text, f"{name}_i")
            text = add_chunk(text, name, known)
        names[f"{tensor}_i"] = known
    return text


def _own_names(text: str, mechanism: Mechanism) -> dict[str, str]:
    """Names that the mechanism brings along, made free in this source."""
    lines = [line for part in mechanism.code.values() for line in part]
    called = {name for line in lines for name in _CALLED.findall(line)}
    own = called | {*mechanism.parameters, *mechanism.projections}
    own -= {"S", "u", "o", "A", "q_i", "k_i", "value", *(f"{name}_i" for name in mechanism.chunked)}
    return {name: fresh(text, name) for name in sorted(own)}


def _source_names(text: str) -> dict[str, str]:
    """The source's own names for what the code of a mechanism calls $S, $u, $o, $A, $q_i, $k_i."""
    names: dict[str, str] = {}
    try:
        loop = loop_of(delta_rule_of(parsed(text)))
        names |= {"S": loop.state, "o": loop.output}
        names |= {f"{tensor}_i": chunk for tensor, chunk in chunk_names(loop).items() if tensor in {"q", "k"}}
        names["u"] = error_of(loop)
        names["A"] = weights_of(loop, names["u"])
    except NoPlace:
        pass  # what is missing is told by the line that asks for it
    return names


def _filled(line: str, names: Mapping[str, str]) -> str:
    missing = [name for name in _CALLED.findall(line) if name not in names]
    if missing:
        raise NoPlace(f"The source has nothing that plays the part of {missing[0]}.")
    return Template(line).substitute(names)


def _said(lines: list[str], mechanism: Mechanism) -> list[str]:
    """The lines, the first with the mechanism's name as a comment."""
    head = f"{lines[0]}  # {mechanism.slug.replace('_', ' ')}"
    return [head if len(head) < WIDTH - 8 else lines[0], *lines[1:]]


def _renamed(entries: Mapping[str, str], names: Mapping[str, str]) -> dict[str, str]:
    return {names[name]: code for name, code in entries.items()}


def _code_of(text: str) -> str:
    """Without comments and the module's docstring, roughly: enough to look for a pattern."""
    parts = text.split('"""', 2) if text.lstrip().startswith('"""') else ["", "", text]
    return "\n".join(line.split("#")[0] for line in parts[-1].split("\n"))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:g}" if value != int(value) else str(int(value))
