"""Reading a variant's source before anything of it runs: quick answers with good messages, not the border.

The border is the walls and the audit. This module reads the text itself; `module_level` and `anywhere` its syntax tree.
"""

import ast
import hashlib
import io
import re
import tokenize
import unicodedata
import warnings
from collections.abc import Iterator, Mapping

from evaluator.reading.anywhere import Anywhere
from evaluator.reading.module_level import ModuleLevel
from evaluator.reading.names import Names

MAX_BYTES = 64 << 10
MAX_FINDINGS = 8
MAX_DEPTH = 80  # of the syntax tree; what walks it here calls itself


def read(sources: Mapping[str, str]) -> list[str]:
    """What is wrong with the sources of a variant (form -> text): sentences with line numbers, none if it may run."""
    findings = [f"{form}.py, {found}" for form, text in sources.items() for found in _read_one(text, form)]
    return findings[:MAX_FINDINGS]


def _read_one(text: str, form: str) -> list[str]:
    found = list(_read_text(text))
    if found:
        return found
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return [f"line {getattr(error, 'lineno', None) or 1}: not valid Python ({getattr(error, 'msg', error)})"]
    if (deep := _depth(tree)) > MAX_DEPTH:
        return [f"line 1: code nested {deep} deep, at most {MAX_DEPTH}; break long expressions up"]
    names = Names(tree)
    findings = {*ModuleLevel(names, form).findings(), *Anywhere(names).findings()}
    return [f"line {line}: {what}" for line, what in sorted(findings)]


def _depth(tree: ast.AST) -> int:
    depth, level = 0, [tree]
    while level:
        depth, level = depth + 1, [child for node in level for child in ast.iter_child_nodes(node)]
    return depth


def _read_text(text: str) -> Iterator[str]:
    size = len(text.encode(errors="surrogatepass"))
    if size > MAX_BYTES:
        yield f"line 1: {size} bytes of source, more than the {MAX_BYTES} allowed"
        return
    if re.search(r"\r(?!\n)", text):
        yield f"line {text[: text.index(chr(13))].count(chr(10)) + 1}: a lone carriage return, which hides code; use \\n"
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), 1):
        hidden = next((c for c in line if c != "\t" and unicodedata.category(c) in ("Cc", "Cf", "Co", "Cs", "Zl", "Zp")), None)
        if hidden and hidden != "\r":
            yield f"line {number}: the invisible character U+{ord(hidden):04X}; remove it"
        cookie = re.match(r"[ \t\f]*#.*?coding[:=][ \t]*([-\w.]+)", line) if number <= 2 else None
        if cookie and cookie[1].lower() not in ("utf-8", "utf8"):
            yield f"line {number}: the coding cookie {cookie[1]}; source is UTF-8 and needs none"
    yield from _look_alikes(text)


def _look_alikes(text: str) -> Iterator[str]:
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.NAME and unicodedata.normalize("NFKC", token.string) != token.string:
                plain = unicodedata.normalize("NFKC", token.string)
                yield f"line {token.start[0]}: a name that only looks different from {plain}; write {plain}"
    except (tokenize.TokenError, SyntaxError):
        return  # the parser says what is wrong, with its line


def digest(sources: Mapping[str, str]) -> str:
    """sha256 over the names and texts of a variant's files."""
    total = hashlib.sha256()
    for name in sorted(sources):
        data = sources[name].encode(errors="surrogatepass")
        total.update(f"{name}.py {len(data)}\n".encode() + data)
    return total.hexdigest()
