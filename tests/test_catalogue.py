"""Every mechanism of the catalogue changes what every parent computes, and keeps the contract."""

import ast
import functools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from agent.catalogue import NothingLeft, mechanisms, propose
from agent.catalogue.choose import applied, name_of
from agent.catalogue.mechanism import Choice, Mechanism, apply_choice, choices
from agent.catalogue.places import PLACES, NoPlace
from agent.catalogue.source import parsed
from agent.catalogue.writing import blocks, reply
from agent.proposal.patch import apply
from agent.proposal.reply import parse
from agent.records import COLUMNS

VARIANTS = Path(__file__).parents[1] / "variants"
STORED = (
    "delta_net",
    "gated_delta_net",
    "softmax_normalised_intra_chunk_causal_attention",
    "tanh_on_error_before_state_update",
)
T, CHUNK, CUT = 100, 32, 71
B, H, K, V = 2, 2, 8, 6


@functools.cache
def source_of(parent: str) -> str:
    if parent == "composed":
        slugs = ("update_momentum", "value_gate", "learned_softmax_weights", "centred_keys")
        child = applied(source_of("delta_net"), [first(slug) for slug in slugs])
        assert child is not None
        return child
    return (VARIANTS / parent / "naive.py").read_text()


def first(slug: str) -> Choice:
    return choices(next(m for m in mechanisms() if m.slug == slug))[0]


@functools.cache
def load(source: str) -> SimpleNamespace:
    space: dict[str, Any] = {}
    exec(compile(source, "naive.py", "exec"), space)
    return SimpleNamespace(**{k: v for k, v in space.items() if not k.startswith("__")})


@functools.cache
def measure(source: str) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    inputs = inputs_of(source)
    with torch.no_grad():
        return inputs, load(source).delta_rule(**inputs, chunk_size=CHUNK)


def inputs_of(source: str, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    operator = load(source)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    inputs = {
        "q": torch.nn.functional.silu(draw(B, H, T, K)),
        "k": torch.nn.functional.silu(draw(B, H, T, K)),
        "v": 3 * torch.nn.functional.silu(draw(B, H, T, V)),
        "beta": torch.sigmoid(draw(B, H, T)),
    }
    if hasattr(operator, "projections"):
        widths = operator.projections(H, K)
        inputs |= {n: draw(B, H, T, w) for n, w in sorted(widths.items()) if n != "output_gate"}
    if hasattr(operator, "parameters"):
        initial = operator.parameters(H, K, torch.Generator().manual_seed(1))
        inputs |= {n: p.expand(B, *p.shape).clone() for n, p in initial.items()}
    return inputs


def everything() -> list[Any]:
    return [
        pytest.param(parent, choice, id=f"{parent[:8]}-{choice.slug}")
        for parent in (*STORED, "composed")
        for mechanism in mechanisms()
        for choice in choices(mechanism)[: None if parent == "delta_net" else 1]
    ]


@pytest.mark.parametrize(("parent", "choice"), everything())
def test_every_mechanism_changes_every_parent_and_keeps_the_contract(parent: str, choice: Choice):
    source = source_of(parent)
    if declined(parent, choice.mechanism):
        with pytest.raises(NoPlace, match="already"):
            apply_choice(source, choice)
        return
    child = apply_choice(source, choice)
    operator, (inputs, output) = load(child), measure(child)
    assert output.shape == (B, H, T, V)
    assert output.isfinite().all()
    _, old = measure(source)
    assert (output - old).abs().max() > 1e-4 * old.abs().max()
    assert not hasattr(operator, "recurrence")

    later = {n: perturbed(x) if x.dim() >= 3 and x.shape[2] == T else x for n, x in inputs.items()}
    with torch.no_grad():
        moved = operator.delta_rule(**later, chunk_size=CHUNK)
        prefix = {n: x[:, :, :CUT] if x.dim() >= 3 and x.shape[2] == T else x for n, x in inputs.items()}
        short = operator.delta_rule(**prefix, chunk_size=CHUNK)
        half = {n: x.bfloat16() for n, x in inputs.items()}
        assert operator.delta_rule(**half, chunk_size=CHUNK).dtype == torch.bfloat16
        one = {n: x[:, :, :1] if x.dim() >= 3 and x.shape[2] == T else x for n, x in inputs.items()}
        assert operator.delta_rule(**one, chunk_size=CHUNK).isfinite().all()
    torch.testing.assert_close(moved[:, :, :CUT], output[:, :, :CUT])
    torch.testing.assert_close(short, output[:, :, :CUT])

    leaves = {n: x.detach().clone().requires_grad_() for n, x in inputs.items()}
    result = operator.delta_rule(**leaves, chunk_size=CHUNK)
    (result * torch.randn(result.shape, generator=torch.Generator().manual_seed(2))).sum().backward()
    for name, leaf in leaves.items():
        assert leaf.grad is not None, name
        assert leaf.grad.isfinite().all(), name
        assert leaf.grad.abs().max() > 0, name


def perturbed(x: torch.Tensor) -> torch.Tensor:
    x = x.clone()
    x[:, :, CUT:] = 0.5 * x[:, :, CUT:].flip(2) + 0.3
    return x


def declined(parent: str, mechanism: Mechanism) -> bool:
    """The parent has the like of it: a decay, normalised weights, a tanh, or its own parts."""
    weights = ("softmax", "learned_softmax", "sigmoid", "relu2", "normalised")
    normalised = {f"{name}_weights" for name in weights}
    decays = {"fixed_decay", "learned_decay", "projected_decay", "coupled_forgetting"}
    return (
        mechanism.slug
        in {
            "delta_net": set(),
            "gated_delta_net": decays | {"distance_decay", "learned_distance_decay"},
            STORED[2]: normalised,
            STORED[3]: {"tanh_write", "tanh_error"},
            "composed": normalised | {"update_momentum", "value_gate", "centred_keys"},
        }[parent]
    )


def test_there_are_enough_mechanisms_at_every_part_of_the_operator_and_each_is_complete():
    assert len(mechanisms()) >= 20
    assert len({m.slug for m in mechanisms()}) == len(mechanisms())
    kinds = [m.kind for m in mechanisms()]
    for kind in ("key/query map", "write strength", "error bounding", "state transition", "read-out"):
        assert kinds.count(kind) >= 4
    for m in mechanisms():
        assert set(m.prediction) <= set(COLUMNS)
        assert set(m.code) <= set(PLACES)
        assert any(c.isdigit() for c in m.reference), m.slug
        assert min(len(m.rationale), len(m.hypothesis)) > 40


@pytest.mark.parametrize("parent", STORED)
def test_a_reply_goes_through_the_parser_and_gives_the_edited_source(parent: str):
    text = propose(parent, {"naive.py": source_of(parent)}, (), 7)
    proposal = parse(text)
    child = apply(proposal, {"naive.py": source_of(parent)})["naive.py"]
    assert "proposer=catalogue" in text
    assert set(proposal.prediction) == set(COLUMNS)
    assert proposal.title[:60] in ast.get_docstring(parsed(child)).replace("\n", " ")
    assert "<<<<<<< SEARCH" in text
    assert "recurrence(" not in child
    assert load(child).delta_rule


def test_the_same_arguments_give_the_same_reply_and_seeds_differ():
    sources = {"naive.py": source_of("delta_net")}
    assert propose("delta_net", sources, {"x"}, 3) == propose("delta_net", sources, {"x"}, 3)
    names = {parse(propose("delta_net", sources, (), seed)).name for seed in range(12)}
    assert len(names) > 6


def test_what_was_tried_does_not_come_again_and_pairs_follow_when_singles_are_done():
    sources = {"naive.py": source_of("delta_net")}
    singles = {c.slug for m in mechanisms() for c in choices(m)}
    tried: set[str] = set()
    for seed in range(len(mechanisms())):
        tried.add(parse(propose("delta_net", sources, tried, seed)).name)
    assert tried == {
        choices(m)[0].slug for m in mechanisms()
    }  # each once, at its default, before any other value
    pair = parse(propose("delta_net", sources, singles, 0))
    assert "_and_" in pair.name
    assert " + " in pair.mechanism
    assert load(apply(pair, sources)["naive.py"]).delta_rule


def test_children_of_children_are_proposed_ten_deep_and_stay_operators():
    name, source, tried = "delta_net", source_of("delta_net"), {"delta_net"}
    for seed in range(10):
        proposal = parse(propose(name, {"naive.py": source}, tried, seed))
        child = apply(proposal, {"naive.py": source})["naive.py"]
        name, source = proposal.name, child
        tried.add(name)
        _inputs, output = measure(source)
        assert output.isfinite().all()
        assert len(name) <= 96
        names = {node.id for node in ast.walk(parsed(source)) if isinstance(node, ast.Name)}
        assert {"torch", "to_chunks"} <= names


def test_a_source_with_other_names_is_edited_at_the_same_places():
    renamed = source_of("delta_net").replace("u_i", "err").replace("o_i", "out").replace("A_i", "w_i")
    renamed = renamed.replace("A = ", "weights = ").replace("W, A)", "W, weights)").replace("S", "state")
    for slug in ("tanh_write", "softmax_weights", "update_momentum", "slow_state", "fixed_decay"):
        child = apply_choice(renamed, first(slug))
        plain = apply_choice(source_of("delta_net"), first(slug))
        torch.testing.assert_close(measure(child)[1], measure(plain)[1])


def test_a_source_without_the_places_is_told_and_nothing_is_offered():
    foreign = "import torch\n\n\ndef delta_rule(q, k, v, beta, *, chunk_size):\n    return v\n"
    with pytest.raises(NoPlace, match="to_chunks"):
        apply_choice(foreign, first("elu_features"))
    with pytest.raises(NothingLeft, match="nothing left"):
        propose("foreign", {"naive.py": foreign}, (), 0)
    with pytest.raises(NoPlace, match="does not parse"):
        apply_choice("def delta_rule(:", first("elu_features"))


def test_names_that_the_source_uses_already_are_left_alone():
    source = source_of("delta_net").replace(
        "    outputs = []", "    before, keep, size = 1, 2, 3\n    outputs = []"
    )
    for slug in ("clipped_update", "learned_decay", "surprise_gate"):
        child = apply_choice(source, first(slug))
        torch.testing.assert_close(
            measure(child)[1], measure(apply_choice(source_of("delta_net"), first(slug)))[1]
        )


def test_blocks_give_any_text_back_where_lines_repeat():
    old = "a\nx\n\nb\nx\n\na\nx\n\nc\n"
    for new in ("a\nx\n\nb\ny\n\na\nx\n\nc\n", "a\nx\n\nb\nx\n\na\nz\nx\n\nc\nd\n", "new\n" + old, "x\n"):
        text = f"# T\nName: some_name\n\n{blocks(old, new)}"
        assert apply(parse(text), {"naive.py": old}) == {"naive.py": new}


def test_a_long_chain_of_names_is_cut_and_stays_unique():
    wanted = [first("learned_distance_decay"), first("local_attention_branch")]
    names = {name_of(wanted, "p" * 80 + str(i)) for i in range(3)}
    assert len(names) == 3
    assert max(map(len, names)) <= 96


def test_the_reply_of_a_pair_names_both_and_adds_up_what_they_foresee():
    wanted = [first("softmax_weights"), first("tanh_write")]
    source = source_of("delta_net")
    child = applied(source, wanted)
    assert child is not None
    proposal = parse(reply("a_pair", "delta_net", source, child, wanted))
    assert proposal.mechanism == "intra-chunk weights + error bounding"
    assert proposal.prediction["Fuzzy Recall"] == pytest.approx(-0.07)
    assert "1706.03762" in proposal.prose
    assert "2504.13173" in proposal.prose
