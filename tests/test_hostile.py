"""A model's text is hostile: whatever it sends, the loop goes on, writes only where it may, and prints no escape.

AGENT_TORTURE scales the number of replies; at 300 there are 2,000.
"""

import os
import random
from collections.abc import Callable
from pathlib import Path

from conftest import MakeJob, reply

from agent import history, loop

COUNT = max(60, int(os.environ.get("AGENT_TORTURE", "10")) * 2000 // 300)
NAMES = [
    "fine_name", "../../up", "/etc/passwd", "a/b", "con", "naive", "delta_net", "x" * 100_000, "\x1b[31mred",
    "\uff46\uff55\uff4c\uff4c",
    "a\u202eb", "a b", "-rf", "", ".", "..", "~", "$(id)", "a\x00b", "%2e%2e", "0007", "\u0430bc", "None", "a;b", "a\nName: b",
]  # fmt: skip
FILES = ["naive.py", "triton.py", "../naive.py", "/etc/hosts", "agent/cli.py", "variants/delta_net/naive.py", "\x1b]0;x\x07.py"]
PIECES = [
    "<<<<<<< SEARCH\n    return v\n=======\n    return -v\n>>>>>>> REPLACE\n",
    "<<<<<<< SEARCH\n=======\n>>>>>>> REPLACE\n", "<<<<<<< SEARCH\n    return v\n", "=======\n", ">>>>>>> REPLACE\n",
    "```python\ndef delta_rule(q, k, v, beta, *, chunk_size):\n    return v * 2\n```\n", "```python\n", "```\n",
    "--- a/{file}\n+++ b/{file}\n@@ -1 +1 @@\n-x\n+y\n", "diff --git a/x b/../../y\nrename from x\nrename to ../../y\n",
    "new file mode 120000\n--- /dev/null\n+++ b/naive.py\n@@ -0,0 +1 @@\n+/etc/passwd\n", "{file}\n```python\nimport os\n```\n",
    "\x1b[2J\x1b]8;;http://x\x07click\x1b]8;;\x07", "\u202e\u200b\ufeff", "\ud800", "\x00", "[bold]markup[/bold]", "[" * 5000,
    "(" * 3000, "<script>alert(1)</script>", "<think>", "</think>", "\r", "\r\n", "9" * 10_000, "{{ brief }}", "{% raw %}",
]  # fmt: skip


def hostile(seed: int) -> str:
    """A reply out of good and bad parts, in good and bad order."""
    rng = random.Random(seed)
    lines = [f"# {rng.choice(['Title', '', PIECES[12], 'x' * 10_000])}", f"Name: {rng.choice(NAMES)}",
             f"Mechanism: {rng.choice(['scaling', PIECES[12], ''])}",
             f"Prediction: {rng.choice(['Compress +0.1', 'Compress nan', 'Everything +9', '', '+' * 1000])}"]  # fmt: skip
    pieces = [rng.choice(PIECES).replace("{file}", rng.choice(FILES)) for _ in range(rng.randrange(6))]
    if rng.random() < 0.3:
        rng.shuffle(lines)
    text = "\n".join(lines[rng.random() < 0.1 :]) + "\n" + "\n".join(pieces)
    return text[: rng.randrange(1, len(text))] if rng.random() < 0.1 else text


def test_no_reply_breaks_the_loop(root: Path, make_job: MakeJob, said: Callable[[], str]) -> None:
    outside = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    around = sorted(root.parent.iterdir())
    replies = [hostile(seed) for seed in range(COUNT - 1)] + [reply("last_one")]
    done = list(loop.run(make_job(replies, tries=1), COUNT))
    assert len(done) == COUNT + 1
    assert (done[-1].name, done[-1].status) == ("last_one", "scored")
    assert history.read(root).problems == ()
    assert {path: path.read_bytes() for path in outside} == outside
    assert sorted(root.parent.iterdir()) == around
    assert {path.name for path in root.iterdir()} == {"history", "prompts", "variants"}
    stored = {path.name for path in (root / "variants").iterdir()}
    assert stored == {entry.name for entry in done if entry.status == "scored"}
    printed = said()
    assert all(c.isprintable() or c == "\n" for c in printed)
