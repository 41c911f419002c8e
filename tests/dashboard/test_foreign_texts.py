"""Markup in prompts, names, notes and files of runs: shown as text on every page, and never run, linked or fetched."""

from __future__ import annotations

import io
import json
import re
import shutil
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from circuits import Run, evidence
from dashboard import bundle, notes
from dashboard.figures import charts
from dashboard.figures import evidence as drawn
from tests.dashboard.browser import MODEL, PATIENCE, Watched, idle
from tests.dashboard.conftest import RUN

if TYPE_CHECKING:
    from playwright.sync_api import Page


MARKUP = (
    "<img src=x onerror=pwned=1><b class=pwned>b</b><script>pwned=1</script>[l](javascript:pwned=1)"
    "![i](http://pwned.example/i.png)<a href=http://pwned.example>a</a>:red[r] $x$ %{x}"
)
NAME = "<img src=x onerror=pwned=1>[l](javascript:pwned=1)![i](http:pwned.example)"
"""As a folder may be called."""
GROUP = "<img src=x onerror=pwned=1>[l](http://pwned.example)"

FOUND = """() => {
  const found = window.pwned === undefined ? [] : ['it ran'];
  const look = (root) => {
    for (const e of root.querySelectorAll('*')) {
      if (e.shadowRoot) look(e.shadowRoot);
      if (e.classList.contains('pwned')) found.push(e.outerHTML);
      if (e.tagName === 'SCRIPT' && e.textContent.includes('pwned')) found.push(e.outerHTML);
      for (const a of e.attributes) {
        if (/^(style|on.*)$/.test(a.name) && a.value.includes('pwned')) found.push(e.outerHTML);
        if (/^(href|xlink:href|src|srcset|srcdoc|action|formaction)$/.test(a.name)) {
          const to = new URL(a.value, location.href);
          if (to.origin !== location.origin && !['data:', 'blob:'].includes(to.protocol)) found.push(e.outerHTML);
        }
      }
    }
  };
  look(document);
  return found;
}"""


def only_text(page: Page) -> None:
    """Nothing of the markup has become an element, and nothing ran."""
    idle(page)
    assert page.evaluate(FOUND) == []


@pytest.fixture(scope="module")
def saved_runs(saved_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The saved run in a folder of this file's own."""
    return Path(shutil.copytree(saved_runs, tmp_path_factory.mktemp("hostile") / "runs"))


@pytest.fixture(scope="module")
def hostile(saved_runs: Path, induction: Any) -> str:
    """A run whose every text is markup, among the saved ones; gives its name."""
    folder = saved_runs / NAME
    shutil.copytree(saved_runs / RUN, folder)
    found = evidence.gather(induction, Run.load(folder))
    for row in found["agreement"]["points"]:
        row["name"] = row["kind"] = MARKUP
    for row in found["minimality"]["nodes"]:
        row["node"] = MARKUP
    for row in found["completeness"]["sets"]:
        row["knocked_out"] = [MARKUP]
    evidence.save(folder, found)
    changed(folder / "run.json", {
        "task": MARKUP, "method": MARKUP, "algorithm": MARKUP, "corruption": MARKUP, "created": MARKUP,
        "versions": {MARKUP: MARKUP}, "ablation": MARKUP,
    })  # fmt: skip
    info = json.loads((folder / "run.json").read_text())
    changed(folder / "run.json", {"model": {**info["model"], "name": MARKUP, "origin": MARKUP}})
    changed(folder / "summary.json", {"warning": MARKUP, "heads": [[MARKUP, -1.0], ["a1.h2", -0.5]]})
    texts = json.loads((folder / "pairs.json").read_text())
    changed(
        folder / "pairs.json",
        {"task": MARKUP, "clean": [MARKUP] * texts["n"], "corrupt": [MARKUP] * texts["n"]},
    )
    notes.write(folder, notes.Notes(MARKUP, ("a0.h2",), {GROUP: ("a0.h2", "a1.h2")}))
    return NAME


def changed(file: Path, values: dict[str, Any]) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def test_charts_show_names_as_they_are():
    assert charts.literal("a1.h2<k> & %{x}") == "a1.h2&lt;k&gt; &amp; %&#123;x}"


def test_pictures_of_evidence_show_names_as_they_are(saved_runs, hostile):
    kept = evidence.load(saved_runs / hostile)
    shown = [
        drawn.agreement_scatter(kept["agreement"]["points"], unit=MARKUP, selected=MARKUP),
        drawn.node_worth(kept["minimality"]),
        drawn.knock_outs(kept["completeness"], metric=MARKUP),
    ]
    for figure in shown:
        foreign = [text for text in strings(figure.to_dict()) if "onerror" in text]
        assert foreign, "it is shown"
        assert not any("<" in text or "%{" in text for text in foreign)


def strings(inside: Any) -> list[str]:
    """All texts in lists and dictionaries."""
    if isinstance(inside, str):
        return [inside]
    parts = (
        inside.values() if isinstance(inside, dict) else inside if isinstance(inside, list | tuple) else ()
    )
    return [text for part in parts for text in strings(part)]


def test_the_bundle_of_a_hostile_run(saved_runs, hostile):
    run = Run.load(saved_runs / hostile)
    with zipfile.ZipFile(io.BytesIO(bundle.bundle(run, hostile))) as zipped:
        names = zipped.namelist()
        pages = [zipped.read(name).decode() for name in names if name.endswith((".html", ".svg"))]
        tables = [zipped.read(name).decode() for name in names if name.endswith(".csv")]
    assert len(pages) == 3
    for text in pages:
        assert "<img" not in text and "<b class" not in text and "<script>pwned" not in text
        assert "javascript:" not in re.sub(r"&[a-z#0-9]+;", "", text) or "<a href" not in text
    assert all(len(Path(name).parts) == 2 and ".." not in name for name in names)
    assert tables


@pytest.mark.parametrize(
    "name", ["../../etc", "/abs", "..\\x", "a/b", "a\x00b", "x" * 300, "C:x", "", "..", " "]
)
def test_files_of_a_bundle_lie_in_one_folder(saved_runs, name):
    run = Run.load(saved_runs / RUN)
    with zipfile.ZipFile(io.BytesIO(bundle.bundle(run, name))) as zipped:
        for path in zipped.namelist():
            parts = Path(path).parts
            assert (
                len(parts) == 2
                and ".." not in parts
                and "\\" not in path
                and "\x00" not in path
                and ":" not in path
            )
            assert not path.startswith("/") and len(parts[0]) <= 120


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.xdist_group("browser")
@pytest.mark.parametrize(
    "where", ["", "circuit", "evidence", "runs", "prompt", "heads", "head", "patching", "probes"]
)
def test_a_hostile_run_on_every_page(hostile, server, visit, where):
    watched: Watched = visit(f"{server.url}/{where}?run={quote(hostile)}&node=a0.h2")
    page = watched.page
    page.get_by_role("heading", level=1).first.wait_for()
    only_text(page)
    if where == "runs":
        page.get_by_text("Everything that is kept of it").click()
        only_text(page)
        page.get_by_role("button", name="Prepare the export").click()
        button = page.get_by_role("button", name=re.compile(r"Download .*\.zip"))
        with page.expect_download() as download:
            button.click()
        report_shows_only_text(page, Path(download.value.path()))
    if where == "evidence":
        for point in page.locator(".js-plotly-plot .points path").all()[:3]:
            point.hover(force=True)
        only_text(page)
    assert "onerror" in page.locator("body").inner_text() or where not in ("", "circuit", "runs"), (
        "it is shown"
    )


def report_shows_only_text(page: Page, file: Path) -> None:
    with zipfile.ZipFile(file) as zipped:
        for name in zipped.namelist():
            if name.endswith(".html"):
                window = page.context.new_page()
                window.set_content(zipped.read(name).decode())
                assert window.evaluate(FOUND) == []
                assert "onerror" in window.locator("body").inner_text() or "circuit.html" in name
                window.close()


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.xdist_group("browser")
def test_hostile_addresses(server, visit):
    """Every parameter with markup, and then with paths: refused in words, and taken out of the address."""
    from playwright.sync_api import expect

    names = "task metric run node edges site receiver other group probe what".split()
    for value in (MARKUP, "../../etc/passwd", "a\x00b"):
        hostile = "&".join(f"{name}={quote(value)}" for name in names)
        page = visit(f"{server.url}/circuit?model={MODEL}&{hostile}").page
        expect(page.get_by_text("Ignored in the address")).to_be_visible()
        only_text(page)
        assert "root:" not in page.locator("body").inner_text()
        page.wait_for_function("() => !/(task|metric|run|node|edges|what)=/.test(location.search)")
        page.context.close()


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.xdist_group("browser")
def test_hostile_prompts_and_files(server, visit):
    from playwright.sync_api import expect

    page = visit(f"{server.url}/prompt?model={MODEL}&prompt={quote(MARKUP)}&answer={quote(MARKUP)}").page
    expect(page.get_by_role("alert").first).to_be_visible()
    only_text(page)
    page.goto(f"{server.url}/?model={MODEL}")
    page.get_by_text("Your own prompts", exact=True).last.click()
    rows = f'clean,corrupt,answer,wrong\n"{MARKUP}","{MARKUP}",ship,coat\n'
    box = page.locator("input[type=file]")
    box.set_input_files({"name": f"{NAME}.csv", "mimeType": "text/csv", "buffer": rows.encode()})
    expect(page.get_by_text("onerror").first).to_be_visible()
    only_text(page)


@pytest.mark.model
@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.xdist_group("browser")
def test_hostile_tokens_in_every_picture(smollm2, server, visit):
    """A language model reads any text, so that markup stands in tokens, tables and pictures."""
    words = f"{MARKUP} Mary and John went"
    at = f"?model=smollm2&prompt={quote(words)}&corrupt={quote(words.replace('Mary', 'John'))}&answer=+Mary&wrong=+John"
    page = visit(f"{server.url}/prompt{at}").page
    page.set_default_timeout(4 * PATIENCE)
    for where, needed in (("prompt", "canvas.cells"), ("heads", "canvas.tiles"), ("head", ".heat")):
        page.goto(f"{server.url}/{where}{at}&node=a9.h2")
        page.locator(needed).first.wait_for()
        only_text(page)
    page.get_by_role("radio", name="Where it is active").click()
    only_text(page)
