"""What every gate works with: random inputs of any shape, fresh in each check, and the reject that names values."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from evaluator import layers
from evaluator.operator import Description, OperatorError, OperatorProcess

Tensors = dict[str, Tensor]
ODD = ("of one sign", "of the other sign", "of one channel", "alike in all channels", "that are the keys")
"""Kinds of vectors that chance never draws and training can come to."""
STANDARD = ("q", "k", "v", "beta")
LEAST, MOST = 0.17, 0.6
"""Of vectors in training, the root of the mean square of a feature."""
ROOM = 2e9  # bytes that a backward pass may keep, far below what a process may have
EPS = {"float64": 2.3e-16, "float32": 1.2e-7, "lower": 8e-3}
"""Relative rounding of each precision class."""


class Rejected(Exception):
    """A gate's verdict: one sentence for the one who must fix the operator, with the values in it."""


@dataclass
class Probe:
    """One check: its random stream, the sizes that are trained, and what was measured so far."""

    rng: torch.Generator
    fresh: OperatorProcess  # the same variant in a process that was asked nothing yet
    num_heads: int = 2
    head_dim: int = 64
    chunk_size: int = 32
    dtype: torch.dtype = torch.float32  # of training
    dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.bfloat16)  # asked side by side
    small_dim: int = 16  # of heads where narrow ones do
    precision: str = "float32"  # measured: float64, float32, lower
    properties: dict[str, Any] = field(default_factory=dict)
    first: tuple[Tensors, Tensor] | None = None  # the first call and its answer, asked again at the end
    _described: dict[tuple[int, int], Description] = field(default_factory=dict)

    def on_device(self, dtype: torch.dtype) -> "Probe":
        """For a GPU: what it trains alone, as kernels are compiled for each type and width, for up to ten seconds.

        What a CPU answered at the start is left behind: a kernel rounds in its own way.
        """
        return replace(self, dtype=dtype, dtypes=(dtype,), small_dim=self.head_dim, first=None)

    def randint(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return int(torch.randint(low, high + 1, (), generator=self.rng))

    def randn(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        drawn = torch.float64 if dtype is torch.float64 else torch.float32  # many times as fast
        return torch.randn(shape, generator=self.rng, dtype=drawn).to(dtype)

    def described(self, operator: OperatorProcess, heads: int, dim: int) -> Description:
        """What the variant declares for these heads."""
        if (heads, dim) not in self._described:
            self._described[heads, dim] = operator.describe(self.randint(0, 1 << 30), heads, dim)
        return self._described[heads, dim]

    def inputs(
        self,
        operator: OperatorProcess,
        B: int,
        T: int,
        *,
        heads: int | None = None,
        K: int | None = None,
        V: int | None = None,
        dtype: torch.dtype | None = None,
        scale: float = 1.0,
        calm: bool = False,
        as_declared: bool = False,
    ) -> Tensors:
        """Random inputs as a layer gives them; each row has parameters of its own, as packed replicas have, or all `as_declared`.

        Where it is `calm` they are as when training begins: small, betas near a half, and parameters as declared.
        """
        H, K = heads or self.num_heads, K or self.head_dim
        dtype = dtype or self.dtype
        declared = self.described(operator, H, K)
        spread = 0.2 if calm else 2.0
        q, k = (scale * F.silu(spread * self.randn(B, H, T, K)) for _ in range(2))
        x = {"q": q, "k": k, "v": scale * F.silu(spread * self.randn(B, H, T, V or K))}
        x["beta"] = torch.sigmoid(spread * self.randn(B, H, T))
        for name, width in declared.projections.items():
            if name != "output_gate":
                x[name] = (0.3 if calm else 1.0) * self.randn(B, H, T, width)
        for name, tensor in declared.parameters.items():
            x[name] = tensor.expand(B, *tensor.shape) + (0.0 if calm or as_declared else 0.1) * self.randn(B, *tensor.shape)
        return self._cast(x, dtype)

    def varied(self, operator: OperatorProcess, B: int, T: int, K: int, dtype: torch.dtype) -> tuple[Tensors, Tensors, Tensor]:
        """Rows as training may make them, the same with another future or other heads or wholly other, and what is kept.

        Every input of every row has a magnitude of its own, from 0.01 to 100, or in one row of four all have such as training gives together;
        beta is saturated or near some level, learned parameters are far from where they began, each by itself, all together or as declared but for one step of all, or in all rows
        as declared. Some rows hold tokens of nothing; some a few tokens again and again, in runs or not, shared by four rows, or their
        keys alone, or some input by itself; some vectors of one sign, of a single channel, the same in all channels, or the same as the keys, or on the
        way there. What is kept is a mask [B, H, T].
        """
        x = {n: v.double() for n, v in self.inputs(operator, B, 2 * T, K=K, dtype=torch.float32).items()}  # many times as fast as drawing doubles
        declared = {n: p.double() for n, p in self.described(operator, self.num_heads, K).parameters.items()}
        as_declared, usual = self.randint(0, 3) == 0, self.uniform(B) < 0.25
        for name in x:
            sizes = self.uniform(B, *[1] * (x[name].dim() - 1))
            trained = usual.view(sizes.shape)
            if name == "beta":
                level = (self.uniform(*sizes.shape) < 0.5) * (10 * self.uniform(*sizes.shape) - 5)  # about which they vary
                x[name] = torch.sigmoid(torch.logit(x[name]) * torch.where(trained, sizes, 40 ** (2 * sizes - 1)) + level * ~trained)
            elif name in self.over_time(x):
                unit = x[name] / torch.where(trained, x[name].square().mean((1, 2, 3), keepdim=True).sqrt(), 1.0)
                x[name] = unit * torch.where(trained, LEAST * (MOST / LEAST) ** sizes, 10 ** (4 * sizes - 2))
            elif as_declared:
                x[name] = declared[name].expand_as(x[name])
            else:
                x[name] = x[name] + (8 * sizes - 4).clamp_min(0) * self.randn(*x[name].shape, dtype=torch.float64)
                together = (3 * self.uniform(*sizes.shape)).floor() - 1  # up, down or not at all
                alike = self.uniform(*sizes.shape) < 0.3  # as training leads those that have the same part: by one step
                far = 6 * max(size(declared[name]), 1.0) * self.uniform(*sizes.shape).square()
                x[name] = torch.where(alike, declared[name], x[name]) + together * far
        for name in self.oddly(x):
            x[name] = self.odd(x[name], self.like(x, name), (3 * len(ODD) * self.uniform(B, 1, 1)).long())
        at, later, from_row = torch.arange(T).expand(B, T), torch.arange(T, 2 * T).expand(B, T), torch.arange(B)
        again, empty = self.uniform(B) < 0.4, (self.uniform(B, 2 * T) < 0.2) & (self.uniform(B, 1) < 0.2)
        from_row = torch.where(again, from_row // 4 * 4, from_row)
        few = self._lasting((self.uniform(2, B, T) * 6).long())
        at, later = torch.where(again[:, None], few[0], at), torch.where(again[:, None], few[1], later)
        cuts = torch.where(self.uniform(B) < 0.3, 0, torch.randint(1, T, (B,), generator=self.rng))
        kept = torch.arange(T) < cuts[:, None]
        edge = (cuts > 0) & (self.uniform(B) < 0.2)  # a leak of one token shows right before the cut alone
        empty[from_row[edge], at[edge, cuts[edge] - 1]] = True

        own_values = torch.where(self.uniform(B) < 0.5, torch.arange(B), from_row)
        tied = (self.uniform(B) * 8 * len(self.over_time(x))).long()  # one input alone comes again and again, in one row of eight

        def taken(name: str, tokens: Tensor, few: Tensor) -> Tensor:
            rows = (own_values if name == "v" else from_row)[:, None]
            full = x[name] * ~empty.view(B, 1, 2 * T, *[1] * (x[name].dim() - 3))
            ties = (tied == self.over_time(x).index(name))[:, None]
            return full[rows, :, torch.where(ties, few, tokens)].movedim(1, 2)

        own = {n: taken(n, at, few[0]) if n in self.over_time(x) else v for n, v in x.items()}
        later, few_later = torch.where(kept, at, later), torch.where(kept, few[0], few[1])
        other = {n: taken(n, later, few_later) if n in self.over_time(x) else v for n, v in x.items()}
        alone, head = (cuts == 0) & (self.uniform(B) < 0.4), self.randint(0, self.num_heads - 1)
        for name in self.over_time(x):  # one head of such a row stays as it is
            other[name][alone, head] = own[name][alone, head]
        kept = kept[:, None].repeat(1, self.num_heads, 1)
        kept[alone, head] = True
        return self._cast(own, dtype), self._cast(other, dtype), kept

    def _lasting(self, tokens: Tensor) -> Tensor:
        """Numbers of tokens [2, B, T], in a quarter of the rows B each as often as a run of up to some tens of them lasts."""
        _, B, T = tokens.shape
        stays = (self.uniform(B, 1) < 0.25) * (0.5 + 0.47 * self.uniform(B, 1))
        first = torch.where(self.uniform(*tokens.shape) < stays, 0, torch.arange(T)).cummax(-1).values
        return tokens.gather(-1, first)

    def odd(self, x: Tensor, k: Tensor, kind: Tensor) -> Tensor:
        """Vectors x [B, H, T, D] made of the kinds of ODD that `kind` [B, H or 1, T or 1] numbers; what is no such number leaves them.

        Half of those vectors are on the way there: a leak may wait for what is nearly, and not quite, of a kind.
        """
        x, same = x.double(), (k if k.shape == x.shape else x).double()
        to_go = (self.uniform(*x.shape[:3], 1) - 0.5).clamp_min(0)
        made = x.clone()
        for number, name in enumerate(ODD):
            where = (kind == number).expand(x.shape[:3])
            vectors = _odd(name, x[where], same[where])
            made[where] = vectors + to_go[where] * F.normalize(x[where], dim=-1) * vectors.norm(dim=-1, keepdim=True)
        return made

    def oddly(self, x: Tensors) -> list[str]:
        """What may be of odd kinds: all vectors of tokens, keys last, as others may be the keys."""
        return [*(n for n in self.over_time(x) if n not in ("k", "beta")), "k"]

    def like(self, x: Tensors, name: str) -> Tensor:
        """What a vector may be the same as: the keys, and a projection any other input as wide."""
        wide = [n for n in self.over_time(x) if n not in (name, "beta", "v") and x[n].shape == x[name].shape]
        return x[wide[self.randint(0, len(wide) - 1)]] if name not in STANDARD and wide else x["k"]

    def width(self, operator: OperatorProcess, wanted: int) -> int:
        """The narrowest heads from `wanted` on that are answered: some operators need a power of two, or eight features."""
        for dim in (d for d in (wanted, 8, 16) if d >= wanted):
            try:
                operator.forward(self.inputs(operator, 1, 9, K=dim), chunk_size=4)
            except OperatorError as error:
                if error.kind != "raised":  # a process that is lost says nothing of heads
                    raise
            else:
                return dim
        raise Rejected("delta_rule fails for heads of 16 features and less; it must work for any head_dim from 16 on")

    def a_head(self) -> int:
        """Any of them: they need not be alike."""
        return self.randint(0, self.num_heads - 1)

    def uniform(self, *shape: int) -> Tensor:
        """From 0 to 1."""
        return torch.rand(shape, generator=self.rng, dtype=torch.float64)

    def _cast(self, x: Tensors, dtype: torch.dtype) -> Tensors:
        """Inputs as a layer gives them: where it computes in bfloat16 declared parameters are float32 all the same."""
        timed, kept = self.over_time(x), torch.promote_types(dtype, torch.float32)
        return {name: value.to(dtype if name in timed else kept).contiguous() for name, value in x.items()}

    def until(self, inputs: Tensors, token: int) -> Tensors:
        """The tokens before that one alone."""
        return {n: v[:, :, :token].contiguous() if n in self.over_time(inputs) else v for n, v in inputs.items()}

    def legal(self, inputs: Tensors) -> Tensors:
        """The same with betas from 0 to 1, as a layer's sigmoid makes them: an operator may take the root of one."""
        return inputs | {"beta": inputs["beta"].clamp(0, 1)}

    def trained(self, inputs: Tensors, betas: float = 0.0) -> Tensors:
        """Inputs of the sizes that training gives: vectors of LEAST to MOST a feature, and betas nearer to one where `betas` is 1, to nothing where -1."""
        sized = dict(inputs)
        for name in self.over_time(inputs):
            x, drawn = inputs[name], float(self.uniform())
            if name == "beta":
                sized[name] = x + betas * (0.3 + 0.5 * drawn) * (1 - x if betas > 0 else x)
            else:
                sized[name] = x * (LEAST * (MOST / LEAST) ** drawn) / x.double().square().mean().sqrt().clamp_min(1e-30).to(x.dtype)
        return sized

    def cuts(self, inputs: Tensors) -> Tensor:
        """One random token for each row, [B], from which on it may be changed."""
        B, _, T = inputs["beta"].shape
        return torch.randint(1, max(T, 2), (B,), generator=self.rng)

    def over_time(self, inputs: Tensors) -> list[str]:
        """Names of the inputs that have a time axis, [B, H, T, ...]: all but declared parameters."""
        declared = set().union(*(d.parameters for d in self._described.values()))
        return [name for name in inputs if name not in declared]

    def replaced(self, inputs: Tensors, where: Tensor, size: float) -> Tensors:
        """Inputs with other values where a mask [B, H, T] is true; `size` is their magnitude."""
        changed = dict(inputs)
        for name in self.over_time(inputs):
            x = inputs[name]
            mask = where.reshape(*where.shape, *[1] * (x.dim() - 3))
            other = self.randn(*x.shape, dtype=x.dtype) * size
            other = other.sigmoid() if name == "beta" else other
            changed[name] = torch.where(mask, other, x)
        return changed


def _odd(kind: str, x: Tensor, k: Tensor) -> Tensor:
    """Vectors x [N, D] made into one of the kinds of ODD."""
    if kind == "of one channel":
        return x * torch.zeros_like(x).scatter(-1, x.abs().argmax(-1, keepdim=True), 1.0)
    if kind == "alike in all channels":
        return x.mean(-1, keepdim=True).expand_as(x)
    return {"of one sign": x.abs(), "of the other sign": -x.abs(), "that are the keys": k}[kind]


def gap(a: Tensor, b: Tensor) -> float:
    """The largest difference; infinite where either is not finite and they are not the same."""
    if not a.numel():
        return 0.0
    difference = (a.double() - b.double()).abs()
    same = (a == b) | (a.isnan() & b.isnan())
    return float(torch.where(same, 0.0, difference).nan_to_num(nan=torch.inf).max())


def felt(x: Tensors, grads: Mapping[str, Tensor | None]) -> dict[str, float]:
    """How much outputs feel each input that a gradient reaches: the product of its norm and its gradient's."""
    return {n: float(g.double().norm() * x[n].double().norm()) for n, g in grads.items() if g is not None}


def size(x: Tensor) -> float:
    """The largest magnitude, at least something above zero."""
    return max(float(x.double().abs().nan_to_num(nan=torch.inf).max()), 1e-30) if x.numel() else 1e-30


def normed(o: Tensor) -> Tensor:
    """Outputs as the layer passes them on, each head's divided by its size; float64."""
    return o.double() / loudness(o.double())


def loudness(o: Tensor) -> Tensor:
    """What the layer divides outputs by, [..., 1]: a token may be loud to hide what is in another one."""
    return (o.square().mean(-1, keepdim=True) + layers.EPS).sqrt()


def apart(a: Tensor, b: Tensor) -> float:
    """How far outputs differ as the layer passes them on, over the largest: one loud token hides no other."""
    return gap(normed(a), normed(b)) / size(normed(b))


def row(x: Tensors, index: Tensor | slice) -> Tensors:
    """Some rows of a batch."""
    return {name: value[index].contiguous() for name, value in x.items()}
