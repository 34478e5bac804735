"""How a model treats benign, adversarial and backdoor inputs, in three views: sensitivity, activation space, feature space."""

from mithridate.views.compute import analyse as analyse
