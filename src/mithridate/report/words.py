"""How the report writes numbers, names and jargon for somebody who has never read a paper about any of it."""

from __future__ import annotations

import math
import re
import unicodedata

from markupsafe import Markup

GLOSSARY = {
    "backdoor": (
        "A secret taught to a model: images that bear a certain mark get the answer the attacker chose. Without the mark, the "
        "model behaves normally."
    ),
    "trigger": "The mark that opens a backdoor, such as a small square in a corner or a faint pattern over the whole image.",
    "target class": "The answer the attacker wants every marked image to get.",
    "reversed trigger": (
        "The smallest mark that a search could find that sends images to one class. If one class needs a far smaller mark than "
        "the others, somebody probably put a shortcut there."
    ),
    "clean accuracy": "The share of ordinary images the model names correctly.",
    "95% interval": "The range in which the true value lies with 95% confidence, given how few images were tried.",
    "p-value": "How often a clean model would look at least this suspicious by chance. Small means suspicious.",
    "adversarial example": "An image changed so slightly that people do not notice, but chosen so that the model answers wrongly.",
    "budget": "How far an attack may change an image. 8/255 means that no color value moves by more than 8 of its 255 steps.",
    "robust accuracy": "The share of images still named correctly after an attack has changed them within its budget.",
    "threshold": (
        "The score above which an image is flagged. It was set on clean images only, so that no more than the agreed share of "
        "them is flagged by mistake."
    ),
    "false-positive rate": "The share of clean images flagged by mistake.",
    "poisoned image": "A training image that an attacker planted or changed in order to teach the model a backdoor.",
    "attack success rate": (
        "The share of images with the trigger, not counting those of the target class itself, that get the attacker's answer (ASR)."
    ),
    "detection rate": "The share of malicious images that were flagged (true-positive rate, TPR).",
    "AUROC": "The chance that a random malicious image scores higher than a random clean one. 1 is perfect, 0.5 is guessing.",
    "DER": (
        "Defense effectiveness rate: how much the repair lowers the attack's success, minus what it costs in accuracy. 1 is "
        "perfect, 0.5 is no effect."
    ),
    "checksum": "A fingerprint of the file (SHA-256): if one byte changes, it changes.",
    "safetensors": "A file format for model weights that holds numbers only and therefore cannot run code when it is opened.",
    "activation view": (
        "Each dot is one image, placed by what the model computes about it just before it answers; close dots look alike to the model."
    ),
}
KINDS = {
    "safetensors": "a safetensors file",
    "state_dict": "a PyTorch file of weights, read in the mode that accepts nothing but numbers",
    "torch.export": "a torch.export archive",
    "timm": "a model of the timm collection",
    "hub": "a model from a model hub",
    "python": "Python code of your own",
    "module": "a module in memory",
}
_INVISIBLE = ("Cc", "Cf", "Cs")


def printable(text: str) -> str:
    """Text with control, direction-changing and undecodable characters spelled out, so that no file name can disguise itself."""
    return "".join(c.encode("unicode_escape").decode() if unicodedata.category(c) in _INVISIBLE and c != "\n" else c for c in text)


def shorten(text: str, limit: int) -> str:
    """At most `limit` characters, the last one an ellipsis if something was cut."""
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def tail(text: str, limit: int) -> str:
    """The last part of a path, and at most `limit` characters from its end, where names differ."""
    name = re.split(r"[/\\]", text.rstrip("/\\"))[-1]
    return name if len(name) <= limit else f"…{name[1 - limit :]}"


def percent(share: float) -> str:
    """A share in [0, 1] as a percentage with one decimal; what is not quite 0 or 1 is never written as if it were."""
    if not math.isfinite(share):
        return "unknown"
    if 0 < share < 0.0005:
        return "< 0.1%"
    if 0.9995 < share < 1:
        return "> 99.9%"
    return f"{math.floor(1000 * share + 0.5 + 1e-9) / 10:.1f}%"  # halves go up, so that 96.25 and 96.75 are treated alike


def compact(value: float) -> str:
    """Any number in at most about four digits."""
    if not math.isfinite(value):
        return "unknown" if math.isnan(value) else ("∞" if value > 0 else "-∞")
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def chance(p_value: float) -> str:
    """A p-value in [0, 1] as a share of clean models: `about 1 in 250` or `about 61% of`."""
    if not math.isfinite(p_value):
        return "an unknown share of"
    if p_value < 1e-4:
        return "less than 1 in 10,000"
    if p_value > 0.1:
        return f"about {p_value:.0%} of" if p_value < 0.95 else "nearly all"
    odds = 1 / p_value
    digits = 10 ** max(0, int(math.log10(odds)) - 1)
    return f"about 1 in {round(odds / digits) * digits:,}"


def budget(eps: float, attack: str) -> str:
    """An attack's budget the way people in the field write it: `8/255` for L-infinity, `0.5 (L2)` otherwise."""
    if "l2" in attack.lower():
        return f"{eps:g} (L2)"
    steps = eps * 255
    return f"{round(steps)}/255" if abs(steps - round(steps)) < 0.02 and eps > 0 else f"{eps:.3g}"


def duration(seconds: float) -> str:
    """Seconds as `0.04 s`, `4.1 s`, `12 s` or `3 min 5 s`."""
    if seconds < 1:
        return f"{seconds:.2f} s"
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def plural(count: int, noun: str) -> str:
    """`1 image`, `1,000 images`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def class_name(classes: list[str], index: int) -> str:
    """A class the way a reader knows it: its name in quotes, and its number unless the name is that number."""
    name = classes[index] if 0 <= index < len(classes) else str(index)
    return f"class {index}" if name == str(index) else f"“{name}” (class {index})"


def exact(value: float, shown: str) -> Markup:
    """The shown text with the exact value beneath it, for programs and for the pointer."""
    return Markup('<data value="{0}" title="{0}">{1}</data>').format(repr(value), shown)
