"""Samples that are learned too fast: losses that keep ordinary samples from being learned, and which samples are learned all the same.

Source: Li et al., NeurIPS 2021, arXiv 2110.11571, section 3 (local gradient ascent, isolation); Ishida et al., ICML 2020,
arXiv 2002.08709 (flooding).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from mithridate.analysis.far_tail import FEWEST, far_tail
from mithridate.analysis.outliers_1d import MAJORITY, split

_Question = tuple[Callable[[Tensor, Tensor], Tensor], str]
DEEP = 0.15  # how empty the valley beside a population must be, for the tail of a label's losses has valleys by chance
LARGE, SHALLOW = 0.1, 0.85  # from this share of a label on, a valley that is less deep will do: clean labels have none under 0.9
MINORITY = 1 / 3  # largest share that a label may have where early epochs and whole labels are asked: of few one is ahead by chance
GAP = math.log(10)  # how much lower the logarithm of a fast population's loss lies


def local_ascent(each: Tensor, gamma: float, *, per_sample: bool) -> Tensor:
    """Mean of sign(l - gamma) * l: descends while a loss is above gamma, ascends once it is below.

    Args:
        each: (n,) cross-entropy of each sample, at least 0.
        gamma: where losses are kept.
        per_sample: each sample has its own sign, as the paper's text says; else the mean loss has one, as released code does.
    """
    value = each if per_sample else each.mean()
    return ((value.detach() - gamma).sign() * value).mean()


def flooding(each: Tensor, level: float, *, per_sample: bool) -> Tensor:
    """Mean of |l - b| + b, which has the gradient of `local_ascent`, with b the level; arguments as there."""
    value = each if per_sample else each.mean()
    return (value - level).abs().mean() + level


def excess(logits: Tensor, labels: Tensor) -> Tensor:
    """By how much the other logits (n, classes) together, log-sum-exp, exceed that of the label (n,): (n,)."""
    own = logits.gather(1, labels[:, None])
    return (logits - own).scatter(1, labels[:, None], -torch.inf).logsumexp(1)


def exact_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy (n,) of logits (n, classes) under labels (n,), exact where it is tiny.

    -log softmax gives 0 for every loss under 6e-8, which is most of what a model has learned by heart, and ties cannot be ranked.
    log(1 + e^excess) does not round there.
    """
    return softplus(excess(logits, labels))


def suspicion(losses: Tensor) -> Tensor:
    """Minus the logarithm of losses (n,) at least 0: higher = more suspicious, and finite."""
    return -losses.clamp_min(torch.finfo(losses.dtype).tiny).log()


def at_best(each: Tensor, recorded: Tensor) -> Tensor:
    """The lowest loss (n,) of each sample, after a training (n,) or in any of the recorded epochs (epochs, n).

    At a constant learning rate a backdoor is learned, lost and learned again. What was recorded on the way costs nothing, and tells who
    was easy at any time.
    """
    return torch.cat([each[None], recorded]).min(0).values


def lowest(losses: Tensor, ratio: float) -> Tensor:
    """The share of samples (n,) bool with the lowest losses (n,): at least one, earlier ones first where losses are equal."""
    chosen = torch.zeros(len(losses), dtype=torch.bool, device=losses.device)
    chosen[losses.argsort(stable=True)[: max(1, round(ratio * len(losses)))]] = True
    return chosen


def fast_learned(losses: Tensor, labels: Tensor) -> Tensor:
    """Which samples (n,) bool form a population of their own within their label, of far lower loss: no poison rate is needed.

    The logarithms of a label's losses are cut at their valley, if they have one (`outliers_1d.split`); a large population may show by a
    shallow one, which is how it looks while it is still being learned. The lower population counts if it has twenty samples, and its
    median loss is under a tenth of that of the label's other samples and of all other labels'. Where it is more than two thirds of the
    label, a label that is merely easy but for a few odd images looks alike, so it counts only if its median is under a tenth of the
    loss that 99 % of all other labels' samples exceed. A label that outnumbers all others two to one is not asked.

    Args:
        losses: (n,) at least 0, best exact ones.
        labels: (n,) int64.

    Raises:
        ValueError: shapes that do not fit, or losses that are negative or not finite.
    """
    if losses.ndim != 1 or labels.shape != losses.shape:
        raise ValueError(f"losses and labels must both have shape (n,), got {tuple(losses.shape)} and {tuple(labels.shape)}")
    if not bool((torch.isfinite(losses) & (losses >= 0)).all()):
        raise ValueError("losses must be finite and at least 0")
    logs, found = -suspicion(losses).double(), torch.zeros(len(losses), dtype=torch.bool, device=losses.device)
    for label in labels.unique().tolist():
        own = labels == label
        cut = split(logs[own], depth=DEEP)
        cut = split(logs[own], least=LARGE, depth=SHALLOW) if cut is None else cut
        if cut is not None and _stands_apart(logs[own & (logs < cut)], logs[own & (logs >= cut)], logs[~own]):
            found |= own & (logs < cut)
    return found


def _stands_apart(low: Tensor, high: Tensor, others: Tensor) -> bool:
    if 2 * len(others) < len(low) + len(high):
        return False  # what outnumbers all other labels two to one is learned first for that alone, and of one label nobody can say
    if len(low) < FEWEST:
        return False  # small sets of photos have ten to nineteen beyond a valley by chance
    share, middle = len(low) / (len(low) + len(high)), low.median()
    below = middle < torch.minimum(high.median(), others.median()) - GAP
    return bool(below) and (share <= MAJORITY or bool(middle < _easiest(others) - GAP))


def _easiest(logs: Tensor) -> Tensor:
    """The value that 99 % of n samples exceed."""
    return logs.kthvalue(max(1, round(0.01 * len(logs)))).values


def fast_label(losses: Tensor, labels: Tensor) -> Tensor:
    """Which samples (n,) bool make a whole label far easier than any other: one that is nearly all poison has no valley to be cut at.

    A rare label that is the target of a tenth of all samples is such a one. Its median loss must be under a tenth of the loss that 99 %
    of all other labels' samples exceed, as in `fast_learned`; its samples under that loss count, twenty of them at least.

    Args:
        losses: (n,) at least 0, best exact ones.
        labels: (n,) int64, none of them more than half of all.
    """
    logs, found = -suspicion(losses).double(), torch.zeros(len(losses), dtype=torch.bool, device=losses.device)
    for label in labels.unique().tolist():
        own = labels == label
        easiest = _easiest(logs[~own])
        fast = own & (logs < easiest)
        if bool(logs[own].median() < easiest - GAP) and int(fast.sum()) >= FEWEST:
            found |= fast
    return found


@dataclass(frozen=True, eq=False)
class Isolated:
    """What was isolated from n samples: `bad` (n,) bool, and `note`, a sentence that says why, or why nothing."""

    bad: Tensor
    note: str


def isolate(losses: Tensor, recorded: Tensor, labels: Tensor, ratio: float, *, gate: bool, adaptive: bool) -> Isolated:
    """The samples to hold for poisoned.

    Args:
        losses: (n,) at least 0, after the training (`LearnedEarly.final_losses`): what is ranked.
        recorded: (epochs, n) at least 0, in each epoch, impartial ones (`leaning`): where what was learned too fast is looked for, too.
        labels: (n,) int64.
        ratio: share of the samples with the lowest losses that is isolated.
        gate: isolate nothing unless there are samples that were learned too fast.
        adaptive: isolate these in place of the share.

    Raises:
        ValueError: as `fast_learned` does.
    """
    few = lowest(losses, ratio)
    own, kind = _too_fast(losses, recorded, labels)
    seen = _seen(losses, labels, few)
    if gate and not kind:
        return Isolated(own, f"gate: nothing to unlearn, no label has samples that are learned far faster; {seen}")
    if adaptive and kind:
        into = ", ".join(map(str, labels[own].unique().tolist()))
        return Isolated(own, f"isolated {int(own.sum())} samples of label {into} that were learned far faster than others{kind}; {seen}")
    return Isolated(few, f"isolated the lowest losses; {seen}")


def _too_fast(losses: Tensor, recorded: Tensor, labels: Tensor) -> tuple[Tensor, str]:
    """Which samples (n,) bool were learned too fast, and what they are: nobody and nothing, if none of five questions finds any.

    Late is asked before ever, for by then more of the poison has been learned; but what is denied by cover images has been lost again.
    Where a label has more than a third of all samples, only the first two are asked. Last comes the one for whole labels.
    """
    population, tail = (fast_learned, "a population of their own"), (far_tail, "the tail of one, as of rare poison")
    late = recorded[len(recorded) - len(recorded) // 2 :]
    questions: list[tuple[str, Tensor, tuple[_Question, ...]]] = [("", late, (population, tail))]
    if int(labels.unique(return_counts=True)[1].max()) <= MINORITY * len(labels):
        # in the first batches losses scatter over a hundred nats, with valleys by chance between the last few
        questions += [(" and lost again later", recorded, (tail, population)), ("", late, ((fast_label, "nearly all of it"),))]
    for when, part, asked in questions:
        for ask, kind in asked:
            if bool((found := ask(at_best(losses, part), labels)).any()):
                return found, f"{when}, {kind}"
    return torch.zeros_like(labels, dtype=torch.bool), ""


def _seen(losses: Tensor, labels: Tensor, few: Tensor) -> str:
    """Class purity and loss gap of the lowest losses, in words."""
    label, count = labels[few].mode().values, int(few.sum())
    purity = float((labels[few] == label).float().mean())
    rest = losses[~few] if count < len(losses) else losses
    medians = f"median {losses[few].median():.2g} against {rest.median():.2g}"
    return f"of the {count} lowest losses {purity:.1%} are of label {int(label)}, {medians}"
