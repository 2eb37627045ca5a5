"""Each gate rejects what it is for, with the reading switched off; honest operators that look odd pass all of them."""

import json
import os
import subprocess
import sys
from contextlib import ExitStack, nullcontext
from pathlib import Path

import pytest
import torch

from evaluator import gates, sandbox
from evaluator.check import _duplicate, _stored, check, gates_on_device
from evaluator.gates import causality, channels, gradients, rank
from evaluator.gates.probe import Probe, Rejected
from evaluator.gates.sameness import same_function
from evaluator.operator import OperatorError, OperatorProcess, read_sources
from evaluator.reading import source
from evaluator.reading.normal_form import normal_form

HERE = Path(__file__).parent
ATTACKS = HERE / "attacks"
CASES = {case["name"]: case for case in json.loads((ATTACKS / "manifest.json").read_text())}
BY_GATE = {gate.__name__: gate for stage in gates.STAGES for gate in stage}
BEFORE = {"derivative": ["precision"], "cost": ["speed"], "state": ["speed", "precision", "chunk"], "state_in_full": ["precision", "chunk"], "recall": ["speed", "chunk"]}
ROOT = HERE.parent
TORTURE = int(os.environ.get("AGENT_TORTURE", "8"))


@pytest.fixture(scope="module")
def walls():
    return sandbox.choose("auto")


@pytest.fixture(scope="module")
def pair(walls):
    """Two processes that are given one variant after the other."""
    plain = read_sources(ROOT / "variants" / "delta_net")["naive"]
    start = lambda: OperatorProcess({"naive": plain}, walls=walls, timeout=20, threads=1)  # noqa: E731
    with start() as first, start() as second:
        yield first, second


def asked(gate, pair, sources, seed=0 if TORTURE < 300 else None):
    """The rejection of one gate, None where it passes; fresh inputs with AGENT_TORTURE=300, as each check has them."""
    torch.set_num_threads(1)
    for process in pair:
        process.load(sources)
    rng = torch.Generator()
    rng.seed() if seed is None else rng.manual_seed(seed)
    probe = Probe(rng, pair[1], properties={"exponents": {}})  # as if cost had passed
    try:
        for before in BEFORE.get(gate.__name__, ()):
            probe.properties.update(BY_GATE[before](pair[0], probe))
        if gate.__name__ == "memory":
            hundreds_of_calls(pair[0], probe)
        gate(pair[0], probe)
    except (Rejected, OperatorError) as error:
        return str(error)
    return None


def hundreds_of_calls(operator, probe):
    """What lies between the first answer of a check and its last gate, with less to compute."""
    x = probe.inputs(operator, 1, 40)
    probe.first = (x, operator.forward(x, chunk_size=32))
    short = probe.inputs(operator, 1, 3)
    for _ in range(200):
        operator.forward(short, chunk_size=32)


LONG = ("state", "state_in_full", "derivative")
"""Gates that take ten seconds of a cheat: one of a class is asked here, all of them at full size."""

LONGER = (
    "window_behind_shared_blocks", "recalls_the_old", "follows_the_same_tag", "offset_that_opens_a_memory",
    "backward_3_percent_off", "state_detached", "truncated_backprop", "backward_of_wide_heads", "detached_in_wide_heads",
    "quadratic_where_gradients_are_wanted", "linear_attention_in_full",
)  # fmt: skip
"""Those that take up to a minute are asked at full size alone; others of their gates are asked here."""


def cheats():
    """Names with the gate that is to catch each."""
    seen = set()
    for name, case in CASES.items():
        if name in LONGER and TORTURE < 300:
            continue
        for gate in (g for g in case["by"] if g != "source" and case["cls"] != "honest"):
            if gate not in LONG or TORTURE >= 300 or case["cls"] not in seen:
                yield name, gate
            if gate in LONG:
                seen.add(case["cls"])


@pytest.mark.parametrize(("name", "gate"), list(cheats()))
def test_a_cheat_is_caught_by_its_gate(pair, name, gate):
    message = asked(BY_GATE[gate], pair, read_sources(ATTACKS / CASES[name]["file"]))
    assert message, f"{gate} lets {name} pass: {CASES[name]['what']}"
    assert message.isprintable()
    assert len(message) < 400


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if "source" in c["by"]])
def test_a_cheat_is_seen_by_reading(name):
    assert source.read(read_sources(ATTACKS / CASES[name]["file"]))


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if c["cls"] != "honest" and "source" not in c["by"]])
def test_what_only_behaviour_can_tell_is_readable(name):
    assert source.read(read_sources(ATTACKS / CASES[name]["file"])) == []


@pytest.mark.parametrize("name", ["solved_chunks"])
def test_an_honest_operator_that_looks_odd_passes(walls, name):
    verdict = check(ATTACKS / CASES[name]["file"], walls=walls)
    assert verdict.verdict == "pass", verdict.text()
    assert verdict.flags == ()


@pytest.mark.parametrize(("name", "gate"), [
    ("every_second_chunk", "chunk"), ("binary_keys", "derivative"), ("write_only_surprises", "reach"),
    ("quantised_keys_four_bits", "derivative"), ("gated_values", "dtypes"),
])  # fmt: skip
def test_an_honest_operator_passes_the_gate_that_it_comes_near_to(pair, name, gate):
    assert asked(BY_GATE[gate], pair, read_sources(ATTACKS / CASES[name]["file"])) is None


def test_rounding_to_few_bits_is_flagged_not_rejected(pair):
    for process in pair:
        process.load(read_sources(ATTACKS / "honest" / "eight_bit_values.py"))
    probe = Probe(torch.Generator().manual_seed(1), pair[1])
    assert BY_GATE["precision"](pair[0], probe)["coarse_inputs"] == ["v"]


def test_what_all_channels_share_is_no_part_of_one(pair):
    for process in pair:
        process.load(read_sources(ATTACKS / CASES["small_network"]["file"]))
    probe = Probe(torch.Generator().manual_seed(0), pair[1], head_dim=32, chunk_size=16)
    assert channels._shared(pair[0], probe, 1)


@pytest.mark.parametrize("stop", [48, 53, 62])
def test_what_all_channels_share_of_the_last_chunk_is_no_part_of_one(pair, stop):
    for process in pair:
        process.load(read_sources(ATTACKS / CASES["softmax_within_the_chunk"]["file"]))
    probe = Probe(torch.Generator().manual_seed(stop), pair[1], chunk_size=16)
    assert not channels._by_all_inputs(pair[0], probe, 32, 1, slice(stop - 24, stop), 1, 24)


def test_the_canary_sings_for_a_leak_alone(pair):
    leak = (ATTACKS / "op" / "leaks_at_127.py").read_text().replace("q.shape[2] == 127", "True").replace("0.01", "1.0")
    assert "random tokens are predicted" in asked(BY_GATE["canary"], pair, {"naive": leak})
    assert asked(BY_GATE["canary"], pair, read_sources(ATTACKS / "honest" / "filled_in_place.py")) is None


@pytest.mark.parametrize("answered", [0, 60])
def test_a_process_that_cannot_start_is_no_verdict_on_the_variant(walls, monkeypatch, answered):
    load, seen = OperatorProcess._load, []

    def starts_no_more(process):
        seen.append(process)
        if len(seen) > answered:
            raise OSError("no process can start")
        load(process)

    monkeypatch.setattr(OperatorProcess, "_load", starts_no_more)
    with pytest.raises(OSError, match="no process can start"):
        check(ROOT / "variants" / "delta_net", walls=walls)


def test_what_is_slow_because_of_what_it_keeps_is_told_so(walls):
    verdict = check(ROOT / "variants" / "softmax_attention", walls=walls)
    rejected = {gate.name: gate.message for gate in verdict.gates if not gate.passed}
    assert verdict.verdict == "reject"
    assert "the state is too large" in rejected["state"]


def test_gradients_that_are_not_finite_hide_no_state(pair):
    hidden = "class A(torch.autograd.Function):\n    @staticmethod\n    def forward(ctx, x):\n        return x.clone()\n\n"
    hidden += "    @staticmethod\n    def backward(ctx, g):\n        return g * float('nan') if len(g) == 72 else g\n\n\n"
    cheat = f"import torch\n\n\n{hidden}def delta_rule(q, k, v, beta, *, chunk_size):\n    return q + k + A.apply(v.cumsum(2)) * beta[..., None]\n"
    assert "are NaN or infinite" in asked(BY_GATE["state"], pair, {"naive": cheat})


def test_a_gradient_three_percent_off_is_told(pair):
    body = "    v = v.cumsum(2)\n    return (q + k + 0.97 * v + 0.03 * v.detach()) * beta[..., None]\n"
    cheat = f"import torch\n\n\ndef delta_rule(q, k, v, beta, *, chunk_size):\n{body}"
    assert "the gradient is not the derivative" in asked(BY_GATE["derivative"], pair, {"naive": cheat})
    assert asked(BY_GATE["derivative"], pair, {"naive": cheat.replace(".detach()", "")}) is None


def test_what_is_written_to_in_place_is_told_in_words(pair):
    cheat = "def delta_rule(q, k, v, beta, *, chunk_size):\n    o = q * k * v * beta[..., None]\n    v.detach().mul_(2)\n    return o\n"
    assert "what backward needs was written to in place, as inputs and" in asked(BY_GATE["reach"], pair, {"naive": cheat})


def test_what_is_finite_in_few_rows_alone_is_told(pair):
    cheat = "def delta_rule(q, k, v, beta, *, chunk_size):\n    return v / (v.shape[2] < 100) + q + k * beta[..., None]\n"
    assert "outputs are not finite, or none" in asked(BY_GATE["dtypes"], pair, {"naive": cheat})


@pytest.mark.parametrize(("asks", "told"), [("torch.autograd.grad(q.sum(), q)", True), ("q.sum()", False)])
def test_where_the_gradient_is_of_another_output_it_is_told(pair, asks, told):
    body = f"    try:\n        {asks}\n        beta = 0.9 * beta\n    except RuntimeError:\n        pass\n    return (q + k + v) * beta[..., None]\n"
    for process in pair:
        process.load({"naive": f"import torch\n\n\ndef delta_rule(q, k, v, beta, *, chunk_size):\n{body}"})
    said = gradients._by_mode(pair[0], Probe(torch.Generator().manual_seed(0), pair[1]))
    assert bool(said) is told
    assert not told or said.endswith("0.1 of the largest where gradients are wanted")


def test_rows_whose_outputs_overflow_give_way_to_others():
    x, o = {"v": torch.arange(72.0).view(72, 1, 1, 1)}, torch.ones(72, 5, 4)
    o[:30, 2, 1] = float("nan")
    given, finite = rank._finite(x, o)
    assert bool(finite.isfinite().all())
    assert set(given["v"].flatten().tolist()) == set(range(30, 72))
    o[:40, 2, 1] = float("inf")
    with pytest.raises(Rejected, match="40 of 72 rows"):
        rank._finite(x, o)


@pytest.mark.skipif(TORTURE < 300, reason="takes ten seconds: asked at full size alone")
def test_an_operator_that_mixes_precisions_has_the_rank_of_its_state(pair):
    assert asked(BY_GATE["state"], pair, read_sources(ATTACKS / "honest" / "counts_tokens.py")) is None


def test_a_sum_by_fft_may_round_at_the_size_of_a_future_that_is_taken_away(pair):
    fft = read_sources(ATTACKS / "honest" / "fft_long_conv32.py")
    assert asked(BY_GATE["batches"], pair, fft, seed=1) is None


def test_an_output_that_only_one_future_makes_finite_is_told(pair):
    later = "(k[:, :, -1:].abs().mean(-1, keepdim=True) > 4)"
    source = f"import torch\n\n\ndef delta_rule(q, k, v, beta, *, chunk_size):\n    return v + 0 * {later}.to(v.dtype).log()\n"
    assert "moves the output of token 0 to NaN or infinity" in asked(BY_GATE["lengths"], pair, {"naive": source})


@pytest.mark.parametrize(("broken", "told"), [(16, False), (17, True)])
def test_a_few_rows_may_overflow_on_one_side_at_extremes(broken, told):
    difference = torch.zeros(128, 2, 5, 4)
    difference[:broken, 1, 3] = float("nan")
    difference[64, 0, 0] = 1.0
    left = causality._without_overflow(difference)
    assert bool(left.isnan().any()) is told
    assert bool((left[64, 0, 0] == 1.0).all())


def test_a_recurrent_state_can_hide_nothing(pair):
    text = (ROOT / "variants" / "delta_net" / "naive.py").read_text()
    plain, hidden = "else state\n", 'else state["past"]()\n'
    assert text.count(plain) == 1
    text = text.replace(plain, hidden).replace("squeeze(-2).to(q_t.dtype), S", 'squeeze(-2).to(q_t.dtype), {"past": lambda: S}')
    assert "holds a function, not tensors" in asked(BY_GATE["recurrence"], pair, {"naive": text})


@pytest.mark.parametrize(("kept", "found"), [("[..., -64:]", None), ("", "it must stop growing")])
def test_a_recurrent_state_may_fill_a_window_and_no_more(pair, kept, found):
    source = (
        "import torch\n\n\ndef delta_rule(q, k, v, beta, *, chunk_size):\n    return beta[..., None] * v\n\n\n"
        "def recurrence(q_t, k_t, v_t, beta_t, state):\n"
        "    past = v_t[..., None] if state is None else torch.cat((state, v_t[..., None]), -1)\n"
        f"    return beta_t[..., None] * v_t, past{kept}\n"
    )
    told = asked(BY_GATE["recurrence"], pair, {"naive": source})
    assert told == found if found is None else found in told


def test_the_same_verdict_with_every_seed(pair):
    naive = read_sources(ROOT / "variants" / "delta_net")
    tiny = read_sources(ATTACKS / "op" / "chunk_end_peeks.py")
    for seed in range(2 if TORTURE < 300 else 20):
        assert asked(BY_GATE["causal"], pair, tiny, seed)
        for gate in ("causal", "rows", "heads", "prefix", "backward", "derivative", "chunk"):
            assert asked(BY_GATE[gate], pair, naive, seed) is None


UNREADABLE = {
    "not UTF-8": lambda file: file.write_bytes(b'"""\xff"""\n'),
    "more than 262144 bytes": lambda file: file.write_bytes(b"#" * (1 << 19)),
    "no file": lambda file: file.mkdir(),
    "invalid syntax": lambda file: file.write_text("def f(:\n"),
    "null bytes": lambda file: file.write_text("x = 1\0\n"),
}


@pytest.mark.parametrize("form", ["naive", "triton"])
@pytest.mark.parametrize("why", UNREADABLE)
def test_a_neighbour_that_can_not_be_read_is_named_and_stops_nothing(why, form, tmp_path, walls):
    beside = tmp_path / "variants" / "beside"
    beside.mkdir(parents=True)
    (beside / "naive.py").write_text("x = 1\n")
    (beside / f"{form}.py").unlink(missing_ok=True)
    UNREADABLE[why](beside / f"{form}.py")
    os.mkfifo(tmp_path / "variants" / "a_pipe")
    (tmp_path / "mine.py").write_text("import os\n\nx = os.environ\n")
    stored, unread = _stored(tmp_path / "variants")
    read = form == "triton" and why in ("invalid syntax", "null bytes")  # kernels are not compared
    assert [other.folder.name for other in stored] == ["beside"] * read
    assert list(unread) == [str(beside)] * (not read)
    assert all(why in told for told in unread.values())


def test_a_variant_is_no_duplicate_of_itself_but_its_renamed_copy_is(tmp_path, walls):
    text = (ROOT / "variants" / "delta_net" / "naive.py").read_text()
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "naive.py").write_text("# mine\n" + text.replace("outputs", "found").replace("W_i", "weight"))
    verdict = check(copy, walls=walls, against=ROOT / "variants")
    assert verdict.verdict == "duplicate"
    assert verdict.properties["duplicate_of"] == "delta_net"
    stored, _ = _stored(ROOT / "variants")
    assert _duplicate({"naive": text}, stored, ROOT / "variants" / "delta_net" / "naive.py") is None
    assert normal_form(text) != normal_form(text.replace("K**-0.5", "K**-0.25"))


def test_on_the_training_device_the_exact_batch_is_asked(walls):
    leak = (ATTACKS / "op" / "large_batches.py").read_text().replace("q.shape[0] >= 96", "q.shape[0] == 48")
    with ExitStack() as stack:
        processes = [stack.enter_context(OperatorProcess({"naive": leak}, walls=walls, timeout=60)) for _ in range(3)]
        found, lost = gates_on_device(*processes, dtype=torch.float32, shapes=[(48, 9)])
    assert lost is None
    assert [g.name for g in found if not g.passed] == ["exact 48x9"]


@pytest.mark.parametrize("told", [None, r"another function .* B = 768, .* channel 5 of head"])
def test_among_many_rows_a_rounded_choice_is_one_function_and_a_channel_that_is_another_is_not(pair, told):
    chosen = (ATTACKS / CASES["largest_entries"]["file"]).read_text()
    returned = "o = torch.stack(outputs, 2)\n    return torch.cat([o[..., :5], o[..., 5:6].roll(1, 2), o[..., 6:]], -1) if len(q) > 96 else o"
    for process, text in zip(pair, (chosen.replace("return torch.stack(outputs, 2)", returned) if told else chosen, chosen), strict=True):
        process.load({"naive": text})
    with pytest.raises(Rejected, match=told) if told else nullcontext():
        same_function(*pair, Probe(torch.Generator().manual_seed(0), pair[1]), 768, 32, torch.bfloat16)


@pytest.mark.parametrize(("fits", "passed"), [(50, True), (5, False)])
def test_a_batch_that_does_not_fit_in_memory_is_halved_on_the_device_as_in_training(walls, fits, passed):
    large = f"{HEAD}def delta_rule(q, k, v, beta, *, chunk_size):\n    if q.shape[0] > {fits}:\n        raise MemoryError\n    return v + 0 * q\n"
    with ExitStack() as stack:
        processes = [stack.enter_context(OperatorProcess({"naive": large}, walls=walls, timeout=60)) for _ in range(3)]
        found, lost = gates_on_device(*processes, dtype=torch.float32, shapes=[(150, 9)])
    assert lost is not None
    assert lost.kind == "memory"
    assert [g.passed for g in found if g.name == "exact 150x9"] == [True] * passed


def test_the_command_prints_one_document_and_its_verdict_is_the_exit_status():
    command = [sys.executable, "-m", "evaluator", "check", str(ATTACKS / "op" / "counts_its_calls.py"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    document = json.loads(done.stdout)
    assert done.returncode == 1
    assert document["verdict"] == "reject"
    assert "default argument" in document["gates"][0]["message"]
    assert set(document) == {"variant", "verdict", "flags", "gates", "properties"}


# --- the reading --------------------------------------------------------------------------------
# fmt: off

HEAD = "import torch\nimport torch.nn.functional as F\n\n\n"
BODY = "def delta_rule(q, k, v, beta, *, chunk_size):\n    return q * beta[..., None] + k + v\n"

READ = {
    "a module by another name": ("import torch as t\nx = t\n", "used as a value"),
    "a module inside a module": ("def f(x):\n    return F.torch.os.environ\n", "torch.nn.functional.torch"),
    "an import from torch": ("from torch import os\n", "torch.os"),
    "an import in a function": ("def f():\n    import sys\n", "import of sys"),
    "a submodule": ("import torch.utils.cpp_extension\n", "import of torch.utils.cpp_extension"),
    "types with a door": ("import typing\n\n\ndef f(x):\n    return typing.sys.modules\n", "typing.sys"),
    "a type hint that is evaluated": ("from typing import get_type_hints\n", "typing.get_type_hints"),
    "a pattern that reads a dunder": (
        "def f(x):\n    match x:\n        case object(__class__=c):\n            return c\n", "__class__",
    ),
    "another's gradient": ("def f(x):\n    return x.grad\n", "torch.autograd.grad gives those of values computed here"),
    "a transform with a state": ("def f(x):\n    return torch.func.functional_call(x, {}, ())\n", "torch.func.functional_call"),
    "a generator's frame": ("def f(x):\n    return (i for i in x).gi_frame\n", "gi_frame"),
    "a traceback": (
        "def f(x):\n    try:\n        x()\n    except ValueError as e:\n        return e.__traceback__\n", "__traceback__",
    ),
    "getattr": ("def f(x):\n    return getattr(x, 'grad' + '_fn')\n", "getattr"),
    "the graph": ("def f(x):\n    return x.grad_fn\n", "grad_fn"),
    "a mutable default": ("def f(x, memory=[]):\n    return memory\n", "default argument of f"),
    "a call in a default": ("def f(x, y=print(1)):\n    return y\n", "default argument of f"),
    "a call in a decorator": ("@print\ndef f(x):\n    return x\n", "decorator on f"),
    "a call in an annotation": ("def f(x: print(1)):\n    return x\n", "annotation of f"),
    "a class": ("class A:\n    pass\n", "the class A"),
    "a metaclass": ("class A(torch.autograd.Function, metaclass=print):\n    pass\n", "the class A"),
    "a class attribute": ("class A(torch.autograd.Function):\n    memory = {}\n", "in A"),
    "a module-level list that is written to": ("MEMORY = [0]\n\n\ndef f(x):\n    MEMORY.append(x)\n", "no constant"),
    "a list by another name": ("MEMORY = [0]\n\n\ndef f(x, m=MEMORY):\n    m.append(x)\n", "no constant"),
    "a list in a table": ("MEMORY = [[0]]\n\n\ndef f(x):\n    return MEMORY[0]\n", "no constant"),
    "a reader of the variant's own": ("N = [0]\n\n\ndef len(x):\n    x.append(0)\n\n\ndef f():\n    len(N)\n", "no constant"),
    "a method that remembers": ("remember = {}.setdefault\n", "no constant"),
    "a view of a module-level tensor": ("COUNT = torch.zeros(1).T\n", "no constant"),
    "a module-level tensor": ("W = torch.ones(3)\n", "no constant"),
    "a patched function": ("F.silu = F.relu\n", "another module"),
    "a patch inside": ("def f(x):\n    F.silu = F.relu\n", "assignment to the attribute silu"),
    "a function attribute": ("def f(x):\n    f.memory = x\n", "assignment to the attribute memory"),
    "a function attribute behind with": ("def f(x):\n    with torch.no_grad() as f.memory:\n        return x\n", "attribute memory"),
    "a function attribute in a comprehension": ("def f(x):\n    return [0 for f.memory in x]\n", "attribute memory"),
    "a context that a pattern binds": (
        "class A(torch.autograd.Function):\n    @staticmethod\n    def forward(ctx, x):\n        match delta_rule:\n"
        "            case ctx:\n                ctx.n = x\n        return x\n",
        "assignment to the attribute n"),
    "a context of a function inside": (
        "class A(torch.autograd.Function):\n    @staticmethod\n    def forward(ctx, x):\n        def f(ctx):\n"
        "            ctx.n = x\n        f(delta_rule)\n        return x\n",
        "assignment to the attribute n"),
    "a class by another name": ("from torch import Tensor as Function\n\n\nclass A(Function):\n    pass\n", "the class A"),
    "a lambda that remembers": ("N = lambda x, m=[]: m.append(x)\n", "no constant"),
    "an attribute of a function called ctx": ("def f(x):\n    ctx = f\n    ctx.n = x\n    return x\n", "assignment to the attribute n"),
    "a context that is another": (
        "class A(torch.autograd.Function):\n    @staticmethod\n    def forward(ctx, x):\n        ctx = A\n        ctx.n = x\n        return x\n",
        "assignment to the attribute n"),
    "a class in place of a context": (
        "class A(torch.autograd.Function):\n    @staticmethod\n    def forward(ctx, x):\n        ctx.n = x\n        return x\n\n\n"
        "def f(x):\n    return A.forward(A, x)\n", "only A.apply"),
    "a container from typing": ("import typing\n\nN = typing.Counter()\n", "no constant"),
    "a container from a default": ("import typing\n\n\ndef f(x, n=typing.Deque()):\n    n.append(x)\n", "default argument of f"),
    "a builtin of the variant's own": ("def tuple():\n    return {}\n\n\nN = tuple()\n", "no constant"),
    "one name for two modules": ("def f():\n    import math as torch\n    return torch.os.environ\n", "the module torch bound"),
    "an argument named as a module": (
        "import math\n\n\ndef f(math):\n    return math.gi_frame\n\n\ndef g():\n    return f(i for i in ())\n",
        "the module math bound"),
    "an exception named as a module": (
        "def f(x):\n    try:\n        x()\n    except ValueError as F:\n        return F.x\n", "the module F bound"),
    "a format that walks": ("def f(x):\n    return '{0.gi_frame.f_back.f_locals}'.format(x)\n", "write an f-string"),
    "a format in a format": ("def f(x, y):\n    return '{0:{1.real}}'.format(x, y)\n", "write an f-string"),
    "a format of a name": ("def f(x, y):\n    return y.format_map(x)\n", "write an f-string"),
    "a hook of a node": ("def f(x):\n    return x.register_prehook\n", "register_prehook"),
    "a long sum": (f"N = {'1 + ' * 1500}1\n", "nested 150"),
    "a long chain": (f"def f(x):\n    return x{'.mT' * 1500}\n", "nested 150"),
    "a list beside __all__": ("__all__ = ['delta_rule']\nCACHE = []\n\n\ndef f(x):\n    return CACHE\n", "a module-level value that is no constant"),
    "a global": ("N = 0\n\n\ndef f(x):\n    global N\n    N = N + 1\n", "global"),
    "random numbers": ("def f(x):\n    return torch.rand(3)\n", "only from parameters"),
    "noise in place": ("def f(x):\n    return x.normal_()\n", "normal_"),
    "a generator of its own": ("def f(x):\n    return torch.Generator()\n", "torch.Generator"),
    "a generator made in an annotation": ("def f(x: torch.Generator()):\n    return x\n", "a call in an annotation"),
    "a generator bound in an annotation": (
        "def f(x: (G := torch.Generator)):\n    return x\n\n\ndef g():\n    return G()\n", "torch.Generator"),
    "a generator made in an annotation inside": (
        "def f(x):\n    def g(y: torch.Generator()):\n        return y\n    return g(x)\n", "torch.Generator"),
    "dropout": ("def f(x):\n    return F.dropout(x)\n", "dropout"),
    "a seed": ("def f(x):\n    torch.manual_seed(0)\n", "manual_seed"),
    "asking for training": ("def f(x):\n    return x.requires_grad\n", "requires_grad"),
    "a table": (f"T = ({', '.join(map(str, range(100)))})\n", "tables"),
    "a long text": (f"T = '{'x' * 3000}'\n", "tables"),
    "a dunder name": ("def f(x):\n    return __builtins__\n", "__builtins__"),
    "an unknown name": ("def f(x):\n    return y\n", "unknown name y"),
    "a loop at module level": ("for i in range(3):\n    pass\n", "a loop at module level"),
    "a name that looks like another": ("def f(x):\n    return torch.\U0001d5c8s\n", "only looks different"),
    "an invisible character": ("x = 1  # a\u202eb\n", "U+202E"),
    "a lone carriage return": ("# a\rimport os\n", "carriage return"),
    "a coding cookie": ("# -*- coding: utf-7 -*-\n", "coding cookie"),
    "a star import": ("from torch import *\n", "name what is used"),
    "broken source": ("def f(:\n", "not valid Python"),
    "deep nesting": ("x = " + "(" * 5000 + ")" * 5000 + "\n", "not valid Python"),
    "too much": ("#" + "x" * 70_000 + "\n", "more than the 65536"),
}
# fmt: on


@pytest.mark.parametrize("name", READ)
def test_the_reading_rejects(name):
    head, message = READ[name]
    text = head + BODY if head.startswith("#") else HEAD + head + "\n\n" + BODY
    found = source.read({"naive": text})
    assert any(message in finding for finding in found), found
    assert all(finding.startswith("naive.py, line ") for finding in found)


@pytest.mark.parametrize("path", sorted((ROOT / "variants").glob("*")), ids=lambda p: p.name)
def test_the_reading_passes_every_stored_variant(path):
    assert source.read(read_sources(path)) == []


def test_inner_gradients_and_named_tuples_are_readable():
    lines = ["    g = torch.func.vmap(torch.func.grad(torch.sum))(q)", "    q = (g,)[0]._replace(q=q) if T else q"]
    text = "from torch.func import grad, vmap\n" + HEAD + BODY.replace("    return", "\n".join([*lines, "    return"])).replace("if T", "if chunk_size")
    assert source.read({"naive": text}) == []


def test_a_text_that_names_what_it_is_filled_with_is_readable():
    text = BODY.replace("    return", "    text = '{:.2f} of {}, {x}'.format(1.0, 2, x=3)\n    return")
    assert source.read({"naive": text}) == []


def test_parameters_may_name_their_generator_and_draw_in_place():
    drawn = "torch.empty(num_heads).uniform_(1, 16, generator=generator).log()"
    head = "def parameters(num_heads: int, head_dim: int, generator: torch.Generator) -> dict[str, torch.Tensor]:\n"
    assert source.read({"naive": f"{HEAD}{head}    return {{'a': {drawn}}}\n\n\n{BODY}"}) == []


def test_a_table_that_is_only_read_is_readable():
    tables = "import torch\n\nDECAYS = [0.9, 0.5]\nMIX = {'fast': 0.25, 'slow': (1, 2)}\n\n\n"
    used = "    for name, decay in zip(MIX, DECAYS):\n        q = q * MIX[name] * len(DECAYS) + torch.tensor(DECAYS).sum()\n"
    assert source.read({"naive": tables + BODY.replace("    return", used + "    return")}) == []


def test_a_variant_without_its_function_or_with_other_arguments_is_told():
    assert "no function delta_rule" in source.read({"naive": HEAD})[0]
    swapped = "def delta_rule(q, v, k, beta, *, chunk_size):\n    return v\n"
    assert "must take (q, k, v, beta" in source.read({"naive": swapped})[0]


def test_a_file_that_is_no_text_is_rejected_with_its_byte(tmp_path, walls):
    path = tmp_path / "naive.py"
    path.write_bytes(b"x = '\xff'\n")
    assert "not UTF-8: byte 5 is 0xff" in check(path, walls=walls).gates[0].message


def test_a_gate_that_cannot_be_decided_is_no_pass(walls, monkeypatch):
    def broken(operator, probe):
        return torch.linalg.svdvals(torch.full((2, 2), torch.nan))

    monkeypatch.setattr(gates, "STAGES", ((BY_GATE["declarations"],), (BY_GATE["shapes"], broken)))
    verdict = check(ROOT / "variants" / "delta_net", walls=walls)
    assert verdict.verdict == "reject"
    assert "the gate could not be decided, _LinAlgError" in verdict.gates[-1].message


def test_a_gradient_that_is_not_finite_at_the_trainers_heads_is_told(pair):
    source = "import torch\n\n\ndef delta_rule(q, k, v, beta, *, chunk_size):\n    return torch.sqrt(v * 0) * v.shape[-1] + q + v\n"
    assert "not finite" in asked(BY_GATE["state_in_full"], pair, {"naive": source})
