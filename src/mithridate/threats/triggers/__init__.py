"""Triggers: one file a method, one import line each."""

from mithridate.threats.triggers import adap_blend as adap_blend
from mithridate.threats.triggers import adap_patch as adap_patch
from mithridate.threats.triggers import badnets as badnets
from mithridate.threats.triggers import blend as blend
from mithridate.threats.triggers import bpp as bpp
from mithridate.threats.triggers import composite as composite
from mithridate.threats.triggers import dfst as dfst
from mithridate.threats.triggers import feature_collision as feature_collision
from mithridate.threats.triggers import ftrojan as ftrojan
from mithridate.threats.triggers import label_consistent as label_consistent
from mithridate.threats.triggers import latent as latent
from mithridate.threats.triggers import low_frequency as low_frequency
from mithridate.threats.triggers import sig as sig
from mithridate.threats.triggers import tact as tact
from mithridate.threats.triggers import trojan_nn as trojan_nn
from mithridate.threats.triggers import wanet as wanet
