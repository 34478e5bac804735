"""Early isolation: poisoned images are learned faster, so after a short training that holds losses up, theirs are the lowest.

    score(x) = -log of the lowest cross-entropy of x in a short training under a loss that will not go below gamma: as recorded in any
               of its epochs, had the model not leaned to the label of x, and after them

The ranking half of Anti-Backdoor Learning as a screen. The given model is asked for nothing but its architecture: a copy of it
starts from new weights.

Scope: poisons whose label follows from a pattern that is easier than the classes. Cost: `epochs` of training, and one pass. Known
failures: two classes in one image, sample-specific triggers, and a `per_sample` hold, which holds up the poisoned images as well
(docs/adr/0015).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from mithridate import loops
from mithridate.analysis.early import Early, learn_early
from mithridate.analysis.isolation import at_best, suspicion
from mithridate.data import Samples
from mithridate.nn.fresh import fresh
from mithridate.nn.modes import predict
from mithridate.roles import Progress, register, silent


@register("screen", scope=("fast",), cost="epochs x one forward and backward pass", paper="Li et al. 2021 (NeurIPS), arXiv 2110.11571")
@dataclass(frozen=True, kw_only=True)
class Isolation(Early):
    """Minus the logarithm of each sample's loss after the first epochs of a training that holds losses at gamma."""

    def screen(self, model: nn.Module, samples: Samples, *, seed: int = 0, progress: Progress = silent) -> Tensor:
        """Scores (n,) on the CPU, in the range of minus the logarithm of a loss.

        Raises:
            ValueError: no samples, or a model that does not return finite logits.
            NotFinite: training diverges at a hundredth of the learning rate, too.
        """
        if not len(samples):
            raise ValueError("samples must not be empty")
        predict(model, samples[:2])
        hooks = loops.Hooks(progress=progress, task="isolating")
        early = learn_early(fresh(model, seed), samples, self, seed=seed, hooks=hooks)
        return suspicion(at_best(early.final_losses(samples, progress=progress), early.impartial))
