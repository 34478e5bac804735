"""The report says what the audit found, in one file that asks nobody for anything and trusts no name it was given."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from mithridate.report import answers, figures, pixels, words
from mithridate.report.html import flatten, render, summary_html
from mithridate.report.pictures import Attacked, Candidates, Pictures, Scores, Sheet, View
from mithridate.report.schema import AuditReport
from report_fixture import XSS, make_pictures, make_report

VOID = {"area", "base", "br", "col", "hr", "img", "input", "link", "meta"}


class Page(HTMLParser):
    """A page taken apart: it must be well formed, so every tag is closed in its turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.values: dict[float, set[str]] = {}
        self.words: list[str] = []
        self._number: float | None = None
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "data":
            self._number = float(dict(attrs)["value"] or "nan")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self._number = None

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)
        if self._number is not None:
            self.values.setdefault(self._number, set()).add(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())

    def attributes(self, name: str) -> list[str]:
        return [value or "" for _, given in self.tags for key, value in given.items() if key == name]


@pytest.fixture(scope="module")
def document() -> str:
    return render(make_report(), make_pictures())


@pytest.fixture(scope="module")
def page(document: str) -> Page:
    return Page(document)


def test_the_verdict_comes_first_and_not_by_color_alone(page: Page) -> None:
    report = make_report()
    assert report.verdict in page.text
    before = page.text.partition(report.verdict)[0]
    assert "Infected" in before
    assert "?" not in before  # no question is answered before the verdict
    assert ("h1", {}) in page.tags
    assert any(given.get("class") == "icon bad" for _, given in page.tags)


def test_the_questions_come_in_order(page: Page) -> None:
    sections = [value for value in page.attributes("id") if re.fullmatch(r"q\d|truth|numbers|how|glossary", value)]
    assert sections == ["q1", "q2", "q3", "q4", "q5", "q6", "q7", "truth", "numbers", "how", "glossary"]


def test_every_link_leads_somewhere_on_the_page(page: Page) -> None:
    identifiers = page.attributes("id")
    assert len(identifiers) == len(set(identifiers))
    links = page.attributes("href")
    assert len(links) > 10
    assert {link.removeprefix("#") for link in links} <= set(identifiers)


def test_nothing_is_asked_of_the_network_and_nothing_runs(page: Page, document: str) -> None:
    assert not re.search(r"https?:|//[a-z]|@import|url\(|<script|<link|<iframe|<object", document, re.IGNORECASE)
    assert all(source.startswith("data:image/png;base64,") for source in page.attributes("src"))
    assert not [key for _, given in page.tags for key in given if key.startswith("on")]
    (policy,) = [given["content"] for tag, given in page.tags if tag == "meta" and given.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert policy.split("; ")[0] == "default-src 'none'"
    assert "script-src" not in policy


def test_the_judges_section_is_there_only_with_a_truth(document: str) -> None:
    without = render(make_report(judged=False), make_pictures())
    for sign in ('id="truth"', "No defense saw any of this", "Attack success rate", "badnets:size=2"):
        assert sign in document
        assert sign not in without
    assert len(without) < len(document)  # the truth's pictures are left out as well


def test_names_from_strangers_are_text(page: Page, document: str) -> None:
    assert "<img src=x" not in document
    assert html.escape(XSS) in document.replace("&#34;", "&quot;").replace("&#39;", "&#x27;")
    assert XSS in page.text
    assert "\u202e" not in document
    assert r"safe\u202egnp.exe" in page.text
    assert r"undecodable-\udcff.png" in page.text
    document.encode()  # a lone surrogate would fail here


@pytest.mark.parametrize("field", ["verdict", "source", "architecture", "classes", "config", "skipped", "note", "trigger"])
def test_no_text_of_the_report_can_break_out(field: str) -> None:
    report = make_report()
    changed = {
        "verdict": report.model_copy(update={"verdict": XSS}),
        "source": report.model_copy(update={"loading": report.loading.model_copy(update={"source": XSS})}),
        "architecture": report.model_copy(update={"loading": report.loading.model_copy(update={"architecture": XSS})}),
        "classes": report.model_copy(update={"classes": 10 * [XSS]}),
        "config": report.model_copy(update={"config": {XSS: {XSS: [XSS]}}}),
        "skipped": report.model_copy(update={"skipped": [XSS]}),
        "note": report.model_copy(update={"evidence": [report.evidence[0].model_copy(update={"note": XSS, "inspector": XSS})]}),
        "trigger": report.model_copy(update={"truth": report.truth.model_copy(update={"trigger": XSS}) if report.truth else None}),
    }[field]
    made = render(changed, make_pictures())
    assert "<img src=x" not in made
    assert XSS in Page(made).text or field == "classes"  # charts shorten long class names
    if field in ("verdict", "classes"):
        assert "<img src=x" not in summary_html(changed)


def test_the_numbers_shown_are_the_reports(page: Page) -> None:
    report = make_report()
    assert report.flagged
    assert report.repair
    assert report.truth
    shares = [report.clean_accuracy, *report.clean_accuracy_interval, report.flagged.realised_fpr, *report.flagged.realised_interval]
    shares += [row.accuracy for row in (*report.robust_accuracy, *report.repair.robust_after)]
    shares += [report.repair.clean_accuracy_after, report.truth.asr_before, report.truth.asr_after, report.truth.robust_accuracy_after]
    assert report.repair.candidate_asr_after is not None
    assert report.truth.tpr is not None
    shares += [report.repair.candidate_asr_after, report.truth.tpr]
    for share in shares:
        assert page.values[share] == {words.percent(share)}
        assert float(words.percent(share).rstrip("%")) == pytest.approx(100 * share, abs=0.0501)
    assert "about 1 in 2,300" in page.values[report.p_value]
    assert page.values[float(report.flagged.count)] == {"97"}
    assert page.values[report.flagged.asked_fpr] == {"1%"}


def test_the_file_is_small(document: str) -> None:
    assert len(document.encode()) < 400_000


def test_large_photographs_and_many_classes_stay_below_three_megabytes() -> None:
    photos = torch.randint(0, 256, (40, 3, 300, 400), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    classes = [f"a rather long class name, number {i}" for i in range(1000)]
    first = make_report().evidence[0].model_copy(update={"per_class": [*(0.1 for _ in range(998)), float("inf"), float("nan")]})
    report = make_report().model_copy(update={"classes": classes, "evidence": [first]})
    sheet = Sheet(images=photos)
    attacked = Attacked(clean=photos, perturbed=photos)
    made = render(report, Pictures(clean=sheet, flagged=sheet, training=sheet, attacked=attacked, truth=sheet, landing=torch.ones(1000)))
    assert len(made.encode()) < 3_000_000
    assert f"The {figures.MOST_BARS} highest of 1000 classes" in Page(made).text


def test_a_clean_model_reads_as_such_and_claims_no_proof() -> None:
    text = Page(render(make_report(infected=False, judged=False))).text
    assert "No infection found" in text
    assert "it is no proof" in text
    assert text.count("Not checked:") == 4  # two questions, at a glance and in their sections
    assert "repair: nothing was found that needs one" in text


def _changed(**updates: object) -> AuditReport:
    return make_report(infected=False).model_copy(update=updates)


def test_the_tone_follows_what_was_found() -> None:
    flagged = make_report().flagged
    assert flagged
    assert answers.verdict_tone(make_report()) == "bad"
    assert answers.verdict_tone(_changed()) == "ok"
    assert answers.verdict_tone(_changed(evidence=[])) == "none"
    assert answers.verdict_tone(_changed(flagged=flagged)) == "warn"
    assert answers.verdict_tone(_changed(flagged=flagged.model_copy(update={"malicious_found": False}))) == "ok"
    assert answers.answers(_changed(clean_accuracy=0.11))[1].tone == "warn"
    assert answers.answers(_changed(loading=make_report().loading.model_copy(update={"safe": False})))[0].tone == "warn"


@pytest.mark.parametrize("update", [{"clean_accuracy_after": 0.7}, {"candidate_asr_after": 0.6}])
def test_a_failed_repair_is_not_recommended(update: dict[str, float]) -> None:
    good = make_report()
    assert good.repair
    bad = good.model_copy(update={"repair": good.repair.model_copy(update=update)})
    assert any("repaired.safetensors" in step for step in answers.advice(good))
    assert not any("repaired.safetensors" in step for step in answers.advice(bad))
    assert any("no repair here was good enough" in step for step in answers.advice(bad))


def test_the_judge_contradicts_the_audit_in_words_where_it_was_wrong() -> None:
    good = make_report()
    assert good.truth
    assert [line.tone for line in answers.judged(good)] == ["ok", "ok", "ok"]
    wrong = good.model_copy(update={"target": 3, "truth": good.truth.model_copy(update={"asr_after": 0.896, "tpr": 0.147})})
    assert [line.tone for line in answers.judged(wrong)] == ["warn", "warn", "bad"]
    assert "The repair did not close the real backdoor" in Page(render(wrong)).text
    assert answers.judged(make_report(infected=False))[0].short == "The audit missed the backdoor."
    assert answers.judged(make_report(judged=False)) == []
    blind = good.model_copy(update={"truth": good.truth.model_copy(update={"tpr": None, "tpr_interval": None, "fpr": None, "auroc": None})})
    assert "False alarms" not in Page(render(blind)).text


def test_the_card_holds_the_verdict_and_needs_no_style_sheet() -> None:
    card = summary_html(make_report())
    page = Page(card)
    assert page.text.startswith("✕ Infected This model is infected")
    assert all(answer.short in page.text for answer in answers.answers(make_report()))
    assert not [tag for tag, _ in page.tags if tag not in ("div", "span")]


@pytest.mark.parametrize(
    ("share", "shown"),
    [
        (0.0, "0.0%"),
        (1.0, "100.0%"),
        (0.0001, "< 0.1%"),
        (0.9999, "> 99.9%"),
        (0.9675, "96.8%"),
        (0.9625, "96.3%"),
        (float("nan"), "unknown"),
    ],
)
def test_percent(share: float, shown: str) -> None:
    assert words.percent(share) == shown


@pytest.mark.parametrize(
    ("p_value", "shown"),
    [(1e-9, "less than 1 in 10,000"), (0.00043, "about 1 in 2,300"), (0.05, "about 1 in 20"), (0.61, "about 61% of"), (1.0, "nearly all")],
)
def test_chance(p_value: float, shown: str) -> None:
    assert words.chance(p_value) == shown


def test_small_words() -> None:
    assert words.budget(8 / 255, "pgd") == "8/255"
    assert words.budget(0.03137255, "pgd:eps=0.03137255") == "8/255"
    assert words.budget(0.5, "pgd:norm=l2") == "0.5 (L2)"
    assert [words.duration(s) for s in (0.04, 4.14, 12.2, 185.0)] == ["0.04 s", "4.1 s", "12 s", "3 min 5 s"]
    assert words.class_name(["0", "cat"], 0) == "class 0"
    assert words.class_name(["0", "cat"], 1) == "“cat” (class 1)"
    assert words.tail("a/b\\" + "c" * 30 + ".png", 10) == "…ccccc.png"
    assert dict(flatten({"a": {"b": 1}, "c": [{"d": 2}, {"d": (3, 4)}]})) == {"a.b": "1", "c.1.d": "2", "c.2.d": "3, 4"}


def _numbers(svg: str, name: str) -> list[float]:
    return [float(value) for value in re.findall(rf'<rect[^>]* {name}="([^"]+)"', svg)]


def test_bars_are_as_long_as_their_values() -> None:
    rows = [
        figures.Bar("a", 1.0, "1"),
        figures.Bar("b", 0.25, "0.25"),
        figures.Bar("c", float("inf"), "∞"),
        figures.Bar("d", float("nan"), "?"),
    ]
    whole, quarter, infinite, unknown = _numbers(figures.bars(rows, "t"), "width")
    assert quarter == pytest.approx(whole / 4, abs=0.1)
    assert infinite == whole
    assert unknown < 1
    below, above = _numbers(figures.bars([figures.Bar("a", -1.0, "-1"), figures.Bar("b", 3.0, "3")], "t"), "width")
    assert above == pytest.approx(3 * below, abs=0.2)


def test_the_threshold_is_drawn_between_the_scores_it_separates() -> None:
    scores = Scores(clean=torch.zeros(50), suspect=torch.full((50,), 10.0), threshold=5.0)
    svg = figures.histogram(scores, "t")
    cut = re.search(r'<line x1="([^"]+)"[^>]*class="cut"', svg)
    assert cut
    clean, suspect = _numbers(svg, "x")
    assert clean < float(cut[1]) < suspect
    assert float(cut[1]) == pytest.approx((clean + suspect) / 2, abs=6.5)
    assert "50 clean images, held out score" in svg


def test_histogram_of_odd_scores() -> None:
    for values in (torch.empty(0), torch.tensor([float("nan"), float("inf")]), torch.ones(3)):
        assert "threshold" in figures.histogram(Scores(clean=values, suspect=values, threshold=1.0), "t")


def test_scatter_draws_every_group_and_the_highlight_last() -> None:
    points = torch.randn(5000, 2, generator=torch.Generator().manual_seed(0))
    svg = figures.scatter(View(points=points, groups=torch.arange(5000) % 3, names=("a", "b", "c"), highlight=0), "t")
    assert re.findall(r"<path[^>]*><title>(\w)</title>", svg) == ["b", "c", "a"]
    assert svg.count("m-3 0a3") + svg.count("m-3.4") <= figures.MOST_POINTS + 3
    assert figures.scatter(View(points=torch.zeros(0, 2), groups=torch.zeros(0, dtype=torch.int64), names=("a",)), "t")


def test_images_are_exact_pngs_and_large_ones_are_scaled_down() -> None:
    import base64
    import io

    import numpy as np
    from PIL import Image

    def decoded(markup: str) -> Image.Image:
        return Image.open(io.BytesIO(base64.b64decode(markup.partition("base64,")[2].partition('"')[0])))

    small = torch.randint(0, 256, (3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    assert torch.equal(torch.from_numpy(np.array(decoded(pixels.image(small, "x")))).permute(2, 0, 1), small)
    assert 'class="px"' in pixels.image(small, "x")
    assert decoded(pixels.image(torch.rand(1, 200, 300), "x")).size == (96, 64)
    assert decoded(pixels.image(torch.full((1, 4, 4), float("nan")), "x")).getpixel((0, 0)) == 0


def test_differences_are_amplified_around_gray() -> None:
    clean = torch.full((1, 1, 2, 2), 0.5)
    perturbed = clean + torch.tensor([[0.0, 0.1], [-0.1, 0.05]])
    difference, factor = pixels.amplified(clean, perturbed)
    assert factor in (4, 5)  # 0.5 / 0.1 in floats
    torch.testing.assert_close(difference[0, 0], 0.5 + factor * torch.tensor([[0.0, 0.1], [-0.1, 0.05]]))
    assert pixels.amplified(clean, clean)[1] == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Sheet(images=torch.zeros(2, 8, 8)), r"images must have shape .* got \(2, 8, 8\)"),
        (lambda: Sheet(images=torch.zeros(2, 1, 8, 8), names=("a",)), "names must be empty or hold 2, got 1"),
        (lambda: Sheet(images=torch.zeros(2, 1, 8, 8), scores=torch.zeros(3)), r"scores must have shape \(2,\), got \(3,\)"),
        (lambda: Candidates(masks=torch.zeros(2, 1, 8, 8), patterns=torch.zeros(3, 3, 8, 8)), "masks must have shape"),
        (lambda: Attacked(clean=torch.zeros(2, 1, 8, 8), perturbed=torch.zeros(1, 1, 8, 8)), "perturbed must have shape"),
        (lambda: Scores(clean=torch.zeros(2, 2), suspect=torch.zeros(1), threshold=0.0), "clean must have shape"),
        (lambda: View(points=torch.zeros(1, 2), groups=torch.tensor([1]), names=("a",)), r"groups must lie in \[0, 1\), got \[1, 1\]"),
        (lambda: Pictures(landing=torch.zeros(2, 2)), "landing must have shape"),
    ],
)
def test_wrong_pictures_are_named(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=message):
        make()


CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars",
]  # fmt: skip


def _browse(folder: Path, document: str, *flags: str) -> str:
    """What Chromium prints when it opens the document."""
    assert CHROMIUM
    (folder / "report.html").write_text(document, "utf-8")
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'profile'}", *flags, (folder / "report.html").as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_a_real_browser_shows_it_light_dark_on_a_phone_and_on_paper(tmp_path: Path, document: str) -> None:
    from PIL import Image

    dom = _browse(tmp_path, document, "--dump-dom")
    assert make_report().verdict in dom
    brightness = {}
    for scheme in (0, 1):
        picture = tmp_path / f"{scheme}.png"
        _browse(tmp_path, document, f"--blink-settings=preferredColorScheme={scheme}", "--window-size=1280,900", f"--screenshot={picture}")
        with Image.open(picture) as image:
            assert image.size == (1280, 900)
            brightness[scheme] = max(image.convert("L").crop((0, 0, 8, 8)).tobytes())
    assert brightness[0] < 60 < 200 < brightness[1]
    paper = tmp_path / "report.pdf"
    _browse(tmp_path, document, f"--print-to-pdf={paper}", "--no-pdf-header-footer")
    assert paper.read_bytes().startswith(b"%PDF")


PROBE = """<script>
addEventListener("load", () => {
  const wide = [...document.querySelectorAll("body *")].filter(e => !e.closest(".scroll") && !e.closest("svg")
    && e.getBoundingClientRect().right > innerWidth + 1);
  const blank = [...document.images].filter(e => !e.complete || !e.naturalWidth);
  document.title = `width ${innerWidth} wide ${wide.length} blank ${blank.length} scroll ${document.documentElement.scrollWidth}`;
});
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_sticks_out_and_every_picture_is_drawn(tmp_path: Path, document: str, width: int) -> None:
    probed = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', PROBE, document)
    framed = f'<title>-</title><iframe style="border:0;width:{width}px;height:900px" srcdoc="{html.escape(probed)}"></iframe>'
    listen = "<script>setInterval(() => { document.title = document.querySelector('iframe').contentDocument.title }, 20)</script>"
    dom = _browse(tmp_path, framed + listen, "--dump-dom", "--virtual-time-budget=4000")
    assert f"<title>width {width} wide 0 blank 0 scroll {width}</title>" in dom
