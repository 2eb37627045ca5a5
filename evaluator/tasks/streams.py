"""Named streams of random numbers that give the same bits on every machine and every numpy from 1.26 on.

All that is used of numpy's random numbers is the raw stream of PCG64 behind a SeedSequence, which numpy
promises not to change; the methods of its `Generator` carry no such promise.
"""

import dataclasses
import hashlib
import json

import numpy as np
import numpy.typing as npt

from evaluator.protocol import Setting

Ints = npt.NDArray[np.int32]
Bools = npt.NDArray[np.bool_]

BLOCK = 128  # examples drawn at a time: it is part of what a seed means, as it orders the draws


def stream_named(*name: str | int | Setting) -> np.random.PCG64:
    """The stream of this name; two settings with one field different have streams without relation."""
    plain = [_fields(part) if isinstance(part, Setting) else part for part in name]
    sha = hashlib.sha256(json.dumps(plain, sort_keys=True).encode())
    return np.random.PCG64(np.random.SeedSequence(int.from_bytes(sha.digest(), "big")))


def _fields(setting: Setting) -> dict[str, str | int | float]:
    # 0 and 0.0 are one setting, so they must be one name.
    return dataclasses.asdict(setting) | {"frac_noise": float(setting.frac_noise)}


def raw(stream: np.random.PCG64, shape: tuple[int, ...]) -> npt.NDArray[np.uint64]:
    return stream.random_raw(shape)


def below(stream: np.random.PCG64, bound: int | Ints, shape: tuple[int, ...]) -> Ints:
    """Uniform over 0 .. bound - 1; a number's probability is off by less than 2**-32."""
    half = np.uint64(32)
    product = (raw(stream, shape) >> half) * np.asarray(bound, dtype=np.uint64)
    return (product >> half).astype(np.int32)


def chance(stream: np.random.PCG64, share: float, shape: tuple[int, ...]) -> Bools:
    """True with probability `share`."""
    return (raw(stream, shape) >> np.uint64(11)) * 2.0**-53 < share
