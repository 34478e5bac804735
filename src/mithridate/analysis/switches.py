"""Class paths: which class an input's neighbors have, layer by layer, and how surprising that is where the model's answer is known.

Source: Katzir and Elovici 2018, arXiv 1811.09043, algorithm 1 (paths and switches); weights after Dudani, IEEE Trans. SMC 6, 1976.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import one_hot

PSEUDO = 5.0  # images' worth of what holds for all answers, in what is said of one


def votes(distances: Tensor, labels: Tensor, classes: int, *, hard: bool = False) -> Tensor:
    """Share (n, classes) of an input's k neighbors that each class has; rows add up to 1.

    A neighbor weighs more the closer it is, and nothing at the distance of the one after the k-th: shares do not jump as
    neighbors come and go. Hard votes give everything to the most frequent class, of several the one with the larger share.

    Args:
        distances: (n, k + 1), ascending; the last one only says how far away the others are.
        labels: (n, k + 1) int64, classes of these neighbors.
        classes: number of classes.
        hard: for the majority alone.
    """
    far = distances[:, -1:]
    weights = far - distances[:, :-1] + 1e-6 * far + torch.finfo(far.dtype).tiny  # all alike where all are equally far away
    empty = distances.new_zeros(distances.shape[0], classes)
    shares = empty.scatter_add(1, labels[:, :-1], weights / weights.sum(1, keepdim=True))
    if not hard:
        return shares
    counts = empty.scatter_add(1, labels[:, :-1], torch.ones_like(weights))
    return one_hot((counts + shares / 2).argmax(1), classes).to(shares)


def switch_priors(path: Tensor) -> Tensor:
    """How often (l,) the class changes at each of l steps, with Laplace's correction: (switches + 1) / (n + 2).

    Args:
        path: (n, l + 1) classes of clean images, none of which was its own neighbor.
    """
    return ((path[:, 1:] != path[:, :-1]).sum(0) + 1) / (len(path) + 2)


def switch_surprise(path: Tensor, priors: Tensor) -> Tensor:
    """Negative log likelihood (n,) of when a path (n, l + 1) switches, in nats, given how often (l,) clean ones do.

    -sum_i [ln P_i where the class changes at step i, else ln(1 - P_i)], the paper's score with its sign changed.
    """
    changes = path[:, 1:] != path[:, :-1]
    return -torch.where(changes, priors.log(), (1 - priors).log()).sum(1)


def answer_priors(shares: Tensor, answers: Tensor) -> Tensor:
    """Which votes (l, classes, classes) to expect in each layer for each answer of the model; the last axis adds up to 1.

    The mean votes of the clean images that are given the answer, and `PSEUDO` images that vote for it as often as all
    images do for theirs, and otherwise for any class alike: so an answer that is rare or never seen is described too.

    Args:
        shares: (n, l, classes) votes on clean images, none of which was its own neighbor.
        answers: (n,) int64 classes that the model gives them.
    """
    count, layers, classes = shares.shape
    agreeing = (shares[torch.arange(count), :, answers].sum(0) + 1) / (count + 2)
    usual = ((1 - agreeing) / max(1, classes - 1))[:, None, None].expand(layers, classes, classes).clone()
    usual.diagonal(dim1=1, dim2=2).copy_(agreeing[:, None])
    given = one_hot(answers, classes).to(shares)
    return (torch.einsum("na,nlc->lac", given, shares) + PSEUDO * usual) / (given.sum(0) + PSEUDO)[:, None]


def answer_surprise(shares: Tensor, answers: Tensor, priors: Tensor) -> Tensor:
    """Negative log likelihood (n,) of the votes in all layers, in nats: -sum_i ln sum_c shares_i(c) priors_i(answer, c).

    Args:
        shares: (n, l, classes).
        answers: (n,) int64 classes that the model gives.
        priors: (l, classes, classes), as `answer_priors` gives them.
    """
    expected = priors[:, answers].transpose(0, 1)
    return -(shares * expected).sum(2).log().sum(1)
