"""The audit's answers in plain sentences: the seven questions in order, what they mean together, and what to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from mithridate.report.schema import AuditReport, Judged, Repaired, Robustness
from mithridate.report.words import budget, chance, class_name, percent, plural

Tone = Literal["ok", "warn", "bad", "none"]
WEAK, STRONG = 0.5, 0.8  # robust accuracy as a share of clean accuracy: below is easy to fool, above holds up well
LOST, ALIVE = 0.05, 0.2  # a repair that costs more accuracy, or leaves the reversed trigger more power, is called out


@dataclass(frozen=True)
class Answer:
    """One question, its answer in one sentence, and how it should make the reader feel."""

    question: str
    short: str
    tone: Tone


def suspicious_inputs(report: AuditReport) -> bool:
    """Whether more suspect inputs were flagged than mistakes on clean images can explain."""
    return report.flagged is not None and report.flagged.malicious_found


def verdict_tone(report: AuditReport) -> Tone:
    """How the whole report is to be read: `bad` infected, `warn` only inputs are suspicious, `none` nobody looked, `ok` otherwise."""
    if report.infected:
        return "bad"
    if suspicious_inputs(report):
        return "warn"
    return "ok" if report.evidence else "none"


LABELS: dict[Tone, str] = {
    "bad": "Infected",
    "warn": "Suspicious inputs",
    "ok": "No infection found",
    "none": "Not inspected",
}


def answers(report: AuditReport) -> list[Answer]:
    """The seven answers, in the order of the report's sections."""
    each: tuple[Callable[[AuditReport], Answer], ...] = (_loading, _accuracy, _infection, _robustness, _inputs, _training, _repair)
    return [answer(report) for answer in each]


def _loading(report: AuditReport) -> Answer:
    question = "Does the file load safely?"
    if report.loading.kind == "module":
        return Answer(question, "There was no file to load: the model was in memory already.", "none")
    if report.loading.safe:
        return Answer(question, "Yes. The weights were read without running any code from the file.", "ok")
    return Answer(question, "It was loaded by running code that came with it, because you asked for that.", "warn")


def _accuracy(report: AuditReport) -> Answer:
    question = "How accurate is it?"
    guess = 1 / max(len(report.classes), 1)
    short = f"It names {percent(report.clean_accuracy)} of {report.clean_images:,} clean images correctly."
    if report.clean_accuracy < min(2 * guess, 0.5):
        return Answer(question, f"{short} That is close to guessing: do the images and their labels fit this model?", "warn")
    return Answer(question, short, "ok")


def _infection(report: AuditReport) -> Answer:
    question = "Is it infected, and towards which class?"
    if not report.evidence:
        return Answer(question, "Not checked.", "none")
    if not report.infected:
        return Answer(question, "No sign of a backdoor was found.", "ok")
    where = f", towards {class_name(report.classes, report.target)}" if report.target is not None else ""
    share = chance(report.p_value)
    return Answer(question, f"Yes{where}. {share[0].upper()}{share[1:]} clean models would look like this.", "bad")


def worst(rows: list[Robustness]) -> Robustness | None:
    """The attack that left the least accuracy, or None."""
    return min(rows, key=lambda row: row.accuracy, default=None)


def _robustness(report: AuditReport) -> Answer:
    question = "How robust is it to adversarial examples?"
    hardest = worst(report.robust_accuracy)
    if hardest is None:
        return Answer(question, "Not checked.", "none")
    share = hardest.accuracy / max(report.clean_accuracy, 1e-9)
    word = "Easily fooled" if share < WEAK else "Partly robust" if share < STRONG else "It holds up well"
    change = budget(hardest.eps, hardest.attack)
    short = f"{word}. Changes of at most {change} lower its accuracy from {percent(report.clean_accuracy)} to {percent(hardest.accuracy)}."
    return Answer(question, short, "ok" if share >= STRONG else "warn")


def _inputs(report: AuditReport) -> Answer:
    question = "Which suspect inputs are malicious?"
    flagged = report.flagged
    if flagged is None:
        return Answer(question, "Not checked: no suspect images were given.", "none")
    if not flagged.count:
        return Answer(question, f"None of the {plural(flagged.of, 'suspect image')} was flagged.", "ok")
    short = f"{flagged.count:,} of {plural(flagged.of, 'suspect image')} flagged"
    if suspicious_inputs(report):
        return Answer(question, f"{short}, more than mistakes alone explain.", "bad")
    return Answer(question, f"{short}, no more than mistakes on clean images explain.", "ok")


def _training(report: AuditReport) -> Answer:
    question = "Which training images look poisoned?"
    training = report.training
    if training is None:
        return Answer(question, "Not checked: no training images were given.", "none")
    if not training.count:
        return Answer(question, f"None of the {plural(training.of, 'training image')} stands out.", "ok")
    return Answer(question, f"{training.count:,} of {plural(training.of, 'training image')} stand out and deserve a look.", "warn")


def _repair(report: AuditReport) -> Answer:
    question = "How does the repaired model compare?"
    repair = report.repair
    if repair is None:
        return Answer(question, "No repaired model was made.", "none")
    kept = f"clean accuracy {percent(repair.clean_accuracy_before)} before, {percent(repair.clean_accuracy_after)} after"
    if repair.candidate_asr_before is not None and repair.candidate_asr_after is not None:
        before, after = percent(repair.candidate_asr_before), percent(repair.candidate_asr_after)
        power = f"The mark we found worked on {before} of images and now works on {after}"
        return Answer(question, f"{power}; {kept}.", "ok" if repair_holds(repair) else "warn")
    return Answer(question, f"{kept[0].upper()}{kept[1:]}.", "ok" if repair_holds(repair) else "warn")


def repair_holds(repair: Repaired) -> bool:
    """Whether the repair kept the accuracy and, as far as the defender can see, closed the backdoor."""
    kept = repair.clean_accuracy_before - repair.clean_accuracy_after <= LOST
    silent = repair.inspected_after is None or not repair.inspected_after.infected
    return kept and silent and (repair.candidate_asr_after is None or repair.candidate_asr_after <= ALIVE)


def judged(report: AuditReport) -> list[Answer]:
    """How the audit's answers stand up to the truth; empty when nobody knows it."""
    truth = report.truth
    if truth is None:
        return []
    lines = [_named(report, truth)]
    if truth.tpr is not None:
        tone: Tone = "ok" if truth.tpr >= STRONG else "warn"
        lines.append(Answer("detection", f"{percent(truth.tpr)} of images with the real trigger were flagged.", tone))
    if report.repair is not None:
        closed = truth.asr_after <= ALIVE
        said = "The repair closed the real backdoor" if closed else "The repair did not close the real backdoor"
        short = f"{said}: its trigger worked on {percent(truth.asr_before)} of images before and works on {percent(truth.asr_after)} after."
        lines.append(Answer("repair", short, "ok" if closed else "bad"))
    return lines


def _named(report: AuditReport, truth: Judged) -> Answer:
    if not report.infected:
        return Answer("verdict", "The audit missed the backdoor.", "bad")
    if report.target == truth.target:
        return Answer("verdict", "The audit named the right class.", "ok")
    if truth.target is None:
        return Answer("verdict", "The audit found the infection, which leads every class to another one.", "ok")
    return Answer("verdict", "The audit found the infection, but not its target.", "warn")


def meaning(report: AuditReport) -> str:
    """What the verdict means, in two or three sentences."""
    tone = verdict_tone(report)
    if tone == "bad":
        answer = class_name(report.classes, report.target) if report.target is not None else "an answer the attacker chose"
        return (
            f"Somebody appears to have taught this model a secret: images that bear a certain small mark are called {answer}, "
            "whatever they show. On every other image it behaves normally, which is why ordinary tests do not notice."
        )
    if tone == "warn":
        return (
            "The model itself shows no sign of a backdoor, but more of the images you asked about look manipulated than mistakes "
            "alone explain. Somebody may be trying to fool the model."
        )
    if tone == "ok":
        return (
            "We looked for a hidden shortcut to every class and found none that stands out. That lowers the risk; it is no proof, "
            "because a method only finds the kinds of backdoor it was made for."
        )
    return "Nothing was inspected for backdoors, so this report says nothing about whether the model is infected."


def certainty(report: AuditReport) -> str:
    """How far the verdict can be trusted, in one or two sentences."""
    if not report.evidence:
        return "There is no evidence either way."
    share = f"{chance(report.p_value)} clean models would look at least this suspicious"
    if report.infected:
        return f"{share[0].upper()}{share[1:]}. The evidence is laid out in section 3."
    return f"There is nothing unusual here: {share}. A backdoor of a kind that nobody has described yet could still hide."


def advice(report: AuditReport) -> list[str]:
    """What to do now, most urgent first."""
    steps: list[str] = []
    if report.infected:
        steps.append("Do not use the original weights where anybody else can choose the images.")
    if report.infected and report.repair is not None and repair_holds(report.repair):
        steps.append(
            f"If you need a model today, use the repaired weights in {report.repair.weights}, after testing them on your own images. "
            "They resist the mark we found; the attacker's own may differ."
        )
    elif report.infected:
        steps.append("Retrain from data you trust, or get the model from a source you trust: no repair here was good enough to rely on.")
    if suspicious_inputs(report):
        steps.append("Look at the flagged images below before anything acts on the model's answers to them.")
    if report.training is not None and report.training.count:
        steps.append("Look through the suspicious training images, remove what does not belong there, and train again.")
    hardest = worst(report.robust_accuracy)
    if hardest is not None and hardest.accuracy < WEAK * report.clean_accuracy:
        steps.append(
            "Like most models, this one is easily fooled on purpose: keep the fitted guard in front of it if strangers send it images."
        )
    if not report.infected and not steps:
        steps.append("Nothing needs to be done now. Audit again when the weights change, and keep the guard if strangers send it images.")
    return steps
