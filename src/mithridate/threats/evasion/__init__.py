"""Evasions: one file a method, one import line each."""

from mithridate.threats.evasion import adv_lib as adv_lib
from mithridate.threats.evasion import apgd as apgd
from mithridate.threats.evasion import art as art
from mithridate.threats.evasion import autoattack as autoattack
from mithridate.threats.evasion import cw as cw
from mithridate.threats.evasion import deepfool as deepfool
from mithridate.threats.evasion import detector_pgd as detector_pgd
from mithridate.threats.evasion import fab as fab
from mithridate.threats.evasion import fgsm as fgsm
from mithridate.threats.evasion import foolbox as foolbox
from mithridate.threats.evasion import pgd as pgd
from mithridate.threats.evasion import square as square
from mithridate.threats.evasion import torchattacks as torchattacks
from mithridate.threats.evasion import uap as uap
