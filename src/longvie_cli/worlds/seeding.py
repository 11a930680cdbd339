"""Independent random streams from one integer seed; nothing global is read or changed."""

import hashlib
import random

import torch

# Seeds from here on belong to evaluation: no training run may draw them, so that a score measured
# on them is a score on landscapes and flights the model has never seen.
EVALUATION_SEED_START = 1_000_000_000


def stream_seed(seed: int, *names: str | int) -> int:
    """Returns a 63-bit seed for the named stream of `seed`, equal on every machine."""
    text = "/".join(str(part) for part in (seed, *names))
    digest = hashlib.blake2b(text.encode("ascii"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def scalar_stream(seed: int, *names: str | int) -> random.Random:
    """Returns the generator of single numbers and choices of the named stream."""
    return random.Random(stream_seed(seed, *names))


def tensor_stream(seed: int, *names: str | int) -> torch.Generator:
    """Returns the CPU generator of noise tensors of the named stream."""
    return torch.Generator().manual_seed(stream_seed(seed, *names))
