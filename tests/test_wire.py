"""Frames carry tensors bit for bit, and nothing that comes over a pipe can hang, fill or run the reader."""

import contextlib
import json
import os
import struct
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluator import sandbox, wire
from evaluator.conversation import printable
from evaluator.operator import OperatorError, OperatorProcess

OPERATOR = "def delta_rule(q, k, v, beta, *, chunk_size):\n    return q * beta[..., None] + v + k\n"


@pytest.fixture
def pipe():
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def sent(pipe, data):
    os.write(pipe[1], data)
    return pipe[0]


def frame(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack(">I", len(text)) + text + data


@pytest.mark.parametrize("dtype", list(wire.DTYPES.values()))
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (2, 3, 5)])
def test_a_tensor_arrives_bit_for_bit(pipe, dtype, shape):
    x = (torch.randn(shape) * 100).to(dtype)
    wire.send(pipe[1], {"request": "x"}, {"x": x})
    header, found = wire.receive(pipe[0])
    assert header == {"request": "x"}
    assert found["x"].dtype == dtype
    assert torch.equal(found["x"], x)


def test_what_is_not_contiguous_and_not_finite_arrives_too(pipe):
    x = torch.tensor([[1.0, float("nan")], [float("-inf"), -0.0]], dtype=torch.bfloat16).mT
    wire.send(pipe[1], {}, {"x": x})
    assert wire.receive(pipe[0])[1]["x"].view(torch.int16).equal(x.contiguous().view(torch.int16))


def test_a_frame_larger_than_the_pipe_arrives(pipe):
    x = torch.randn(1 << 20)
    thread = threading.Thread(target=wire.send, args=(pipe[1], {}, {"x": x}))
    thread.start()
    assert torch.equal(wire.receive(pipe[0])[1]["x"], x)
    thread.join()


@pytest.mark.parametrize(
    "header",
    [
        b"{",
        b"\xff\xfe",
        b"[]",
        b"null",
        b"[" * 100_000,
        b'{"x": ' * 20_000,
        b"{}",
        {"tensors": None},
        {"tensors": {"x": 1}},
        {"tensors": [["x", "float32"]]},
        {"tensors": [["x", "object", [1]]]},
        {"tensors": [["x", "float32", [-1]]]},
        {"tensors": [["x", "float32", [1.5]]]},
        {"tensors": [["x", "float32", [True]]]},
        {"tensors": [["x", "float32", [1] * 99]]},
        {"tensors": [["x", "float32", [1 << 62]]]},
        {"tensors": [["x", "float32", [0, *[1 << 32] * 7]]]},
        {"tensors": [["x", "float64", [1 << 20, 1 << 20]]]},
        {"tensors": [[None, "float32", [1]]]},
        {"tensors": [["x", ["float32"], [1]]]},
        {"tensors": [["x", "float32", [0]], ["x", "float32", [0]]]},
        {"tensors": [[str(i), "float32", [0]] for i in range(5000)]},
    ],
)
def test_a_malformed_header_is_refused(header):
    ends = os.pipe()
    writer = threading.Thread(target=lambda: (os.write(ends[1], frame(header)), os.close(ends[1])))
    writer.start()
    with pytest.raises(wire.WireError):
        wire.receive(ends[0])
    os.close(ends[0])
    writer.join()


def test_a_long_header_is_refused_before_it_is_read(pipe):
    with pytest.raises(wire.WireError, match="is more than"):
        wire.receive(sent(pipe, struct.pack(">I", 0xFFFFFFFF)))


def test_more_bytes_than_expected_are_refused_before_they_are_read(pipe):
    with pytest.raises(wire.WireError, match="8 bytes is more than the 4 allowed"):
        wire.receive(sent(pipe, frame({"tensors": [["x", "float32", [2]]]})), limit=4)


def test_a_pipe_that_ends_inside_a_frame_is_told(pipe):
    whole = frame({"tensors": [["x", "float32", [2]]]}, b"1234")
    read, write = os.pipe()
    os.write(write, whole)
    os.close(write)
    with pytest.raises(wire.WireClosed):
        wire.receive(read)
    os.close(read)


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_a_frame_or_an_error(data):
    read, write = os.pipe()
    os.write(write, data)
    os.close(write)
    try:
        wire.receive(read, limit=1 << 16)
    except wire.WireError:
        pass
    finally:
        os.close(read)


def test_text_of_a_stranger_is_made_printable():
    assert printable("a\x1b[31mred\n\n\u202eevil\x00") == "a [31mred evil"
    assert len(printable("x" * 10_000)) == 300


# --- the other side of the pipe -----------------------------------------------------------------


def process(source=OPERATOR, timeout=60.0, walls="auto"):
    return OperatorProcess({"naive": source}, walls=sandbox.choose(walls), timeout=timeout, threads=1)


def inputs(T=5):
    torch.manual_seed(0)
    return {n: torch.randn(1, 2, T, 4) for n in ("q", "k", "v")} | {"beta": torch.rand(1, 2, T)}


def test_an_operator_answers_and_its_gradients_are_right():
    x = inputs()
    with process() as operator:
        assert operator.description.projections == {}
        assert torch.equal(operator.forward(x, chunk_size=32), x["q"] * x["beta"][..., None] + x["v"] + x["k"])
        _, grads = operator.vjp(x, torch.ones_like(x["v"]), chunk_size=32)
    assert torch.equal(grads["q"], x["beta"][..., None].expand_as(x["q"]))
    torch.testing.assert_close(grads["beta"], x["q"].sum(-1))


# fmt: off
FAILURES = {
    "raises": ("raise ValueError('odd \\x1b[31m' + 'x' * 999)", "raised", "line 3 of naive.py, ValueError: odd"),
    "asks for too much": ("return torch.empty(1 << 46)", "memory", "can't allocate memory"),
    "interrupts": ("raise KeyboardInterrupt", "raised", "KeyboardInterrupt"),
    "exits well": ("raise SystemExit(0)", "raised", "SystemExit: 0"),
    "ends at once": ("import os; os._exit(0)", "crashed", "ended with status 0 before it answered"),
    "can't be printed": ("raise type('E', (Exception,), {'__str__': lambda e: 1})()", "raised", "can't be printed"),
    "segfaults": ("import ctypes; ctypes.string_at(0)", "crashed", "signal 11"),
    "hangs": ("while True: pass", "timeout", "not answered within 2 s"),
    "hangs when it is printed": (
        "raise type('E', (Exception,), {'__str__': lambda e: [0 for _ in iter(int, 1)]})()", "timeout", "within 2 s",
    ),
    "returns a list": ("return [1]", "bad-output", "returned a list"),
    "returns another dtype": ("return v.double()", "bad-output", "float64"),
    "returns another shape": ("return v[:, :1]", "bad-output", "returned shape [1, 1, 5, 4]"),
    "returns a subclass": ("return torch.nn.Parameter(v)", "bad-output", "a Parameter, not a plain tensor"),
    "changes settings": ("torch.set_default_dtype(torch.float64); return v", "bad-output", "default dtype"),
    "forges an answer": (
        "import os, sys; os.write(int(sys.argv[3]), b'\\0\\0\\0\\2{}'); return v", "bad-output", "answered out of turn",
    ),
}
# fmt: on
SURVIVED = ("raised", "memory")


@pytest.fixture(scope="module")
def standing():
    """A process that goes on after a failure that leaves it alive, with the operator of the next."""
    with process() as operator:
        yield operator


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_is_one_sentence_in_its_time(standing, name):
    body, kind, message = FAILURES[name]
    source = f"import torch\ndef delta_rule(q, k, v, beta, *, chunk_size):\n    {body}\n"
    with contextlib.nullcontext(standing) if kind in SURVIVED else process() as operator:
        operator.load({"naive": source})
        began = time.monotonic()
        with pytest.raises(OperatorError) as caught:
            operator.forward(inputs(), chunk_size=32, timeout=2.0 if kind == "timeout" else None)
    assert caught.value.kind == kind
    assert message in caught.value.message
    assert len(caught.value.message) <= 330
    assert caught.value.message.isprintable()
    assert time.monotonic() - began < 30


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="this kernel does not tell who waits for a processor")
def test_a_busy_machine_is_no_fault_of_an_operator():
    """Three programs that only turn have its processor, too, and it needs longer than its bound by the clock on the wall."""
    body = "import time\n    while time.process_time() < until: pass\n    return v"
    source = f"def delta_rule(q, k, v, beta, *, chunk_size):\n    import time\n    until = time.process_time() + 1\n    {body}\n"
    turn = f"import os; os.sched_setaffinity(0, {{{min(os.sched_getaffinity(0))}}})\nwhile True: pass"
    with ExitStack() as stack:
        operator = stack.enter_context(process(source))
        _ = operator.description
        for pid in operator._talk.jail.tree():
            os.sched_setaffinity(pid, {min(os.sched_getaffinity(0))})
        for _ in range(3):
            other = subprocess.Popen([sys.executable, "-c", turn])
            stack.callback(other.wait)
            stack.callback(other.kill)
        began = time.monotonic()
        operator.forward(inputs(), chunk_size=32, timeout=1.5)
    assert time.monotonic() - began > 1.5


def test_a_flood_on_stdout_is_bounded_and_parsed_by_nobody():
    source = OPERATOR.replace("    return", '    print(\'{"reply": "end"}\' * 20000)\n    return')
    with process(source) as operator:
        for _ in range(5):
            operator.forward(inputs(), chunk_size=32)
        assert len(operator.log) <= 64 << 10


def test_a_process_that_failed_says_so_ever_after():
    with process("def delta_rule(q, k, v, beta, *, chunk_size):\n    import os\n    os._exit(3)\n") as operator:
        for _ in range(2):
            with pytest.raises(OperatorError, match="ended with status 3"):
                operator.forward(inputs(), chunk_size=32)
        assert operator.failed


def test_a_variant_that_cannot_be_loaded_is_told():
    with process("import torch\nraise RuntimeError('no')\n") as operator, pytest.raises(OperatorError, match="RuntimeError: no"):
        _ = operator.description


def test_a_process_that_cannot_start_is_the_machines_fault(monkeypatch):
    monkeypatch.setattr(sandbox, "_environment", lambda home: {"PATH": "/nowhere", "PYTHONHOME": "/nowhere"})
    told = r"behind the walls \(plain\) can't start on this machine: .*ended with status"
    with process(walls="off") as operator, pytest.raises(OSError, match=told):
        operator.forward(inputs(), chunk_size=4)


def test_a_process_that_is_ended_while_it_starts_has_failed_and_the_machine_has_not():
    with process() as operator:
        operator.kill()
        with pytest.raises(OperatorError):
            operator.forward(inputs(), chunk_size=4)
