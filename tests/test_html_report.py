"""The page: its parts, its sentences, and how it is written."""

import getpass
import os
import re
import socket
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from html_pages import DTYPES, PAGES, chain, one_case_twin, planted_page

from torch_ref import verify
from torch_ref.cli import main
from torch_ref.compare import Report
from torch_ref.report.html import LARGEST, html_fragment, html_page, write_html


class Walk(HTMLParser):
    """Every element in its place: what is opened is closed, in the right order."""

    EMPTY = ("meta", "link", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs)
        self.seen.append((tag, dict(attrs)))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.seen if name == tag]


def check_structure(walk: Walk) -> None:
    tags = {tag for tag, _ in walk.seen}
    assert not tags & {"script", "link", "img", "iframe", "object", "form"}
    assert not [name for _, attributes in walk.seen for name in attributes if name[:2] == "on"]
    assert all(th.get("scope") in ("col", "row") for th in walk.all("th"))
    for svg in walk.all("svg"):
        assert svg.get("aria-hidden") == "true" or svg.get("role") == "img"
        assert svg.get("aria-hidden") or svg.get("aria-label") or svg.get("aria-labelledby")
    ids = [attributes["id"] for _, attributes in walk.seen if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in walk.seen:
        pointed = str(attributes.get("aria-labelledby") or "").split()
        pointed += re.findall(r"#([\w-]+)", str(attributes.get("marker-end") or ""))
        pointed += [str(attributes.get("href") or "#")[1:]]
        assert {one for one in pointed if one} <= set(ids)


@pytest.mark.parametrize("name", PAGES)
def test_every_page_is_well_formed(name: str) -> None:
    text = html_page(PAGES[name], "mine.py:twin")
    walk = Walk(text)
    check_structure(walk)
    for tag in ("html", "h1", "header", "main", "footer"):
        assert len(walk.all(tag)) == 1
    assert walk.all("html") == [{"lang": "en"}]
    assert len(text.encode()) < LARGEST
    rows = sum(len(report.rows) for report in PAGES[name])
    assert len([th for th in walk.all("th") if th["scope"] == "row"]) == rows
    assert not re.search(r"(src|href)=\"(?!#)|@import|url\((?!#)", text)


def test_of_very_many_quantities_the_wrong_ones_stay_and_the_page_says_so() -> None:
    names = [f"{'long' * 40}{i}" for i in range(1000)]
    reports = [chain(*names, wrong=names[4], dtype=dtype) for dtype in DTYPES]
    text = html_page(reports)
    assert len(text.encode()) < LARGEST
    rows = [tr["class"] for tr in Walk(text).all("tr") if "class" in tr]
    kept = len(rows) // 4
    assert rows.count("first") == 4
    assert rows.count("inherited") == 4 * 4
    assert f"{1000 - kept} more are left out" in text


def test_names_of_any_length_and_kind_do_not_make_the_page_large() -> None:
    """Each < or & takes four letters and more once it is escaped."""
    names = [f"{i}{'<&' * 200}" for i in range(50)]
    reports = [chain(*names, wrong=names[4], twin="&" * 9000, dtype=dtype) for dtype in DTYPES]
    assert len(html_page(reports).encode()) < LARGEST
    fragment = reports[0]._repr_html_()
    assert fragment is not None
    assert len(fragment.encode()) < LARGEST
    for text in (html_page(reports), fragment):
        assert [tr["class"] for tr in Walk(text).all("tr") if "class" in tr].count("first") >= 1


def test_the_verdict_is_one_sentence() -> None:
    def says(*reports: Report) -> str:
        (found,) = re.findall(r"<h1.*?</span> (.*?)</h1>", html_page(reports))
        return found

    right, wrong = chain("x", "y"), chain("x", "y", wrong="y")
    agrees = "The hand-written backward pass of “chain” agrees with autograd: every difference is"
    assert says(right) == f"{agrees} rounding."
    enters = "The hand-written backward pass of “chain” is wrong{}: the mistake enters at dL/dy."
    assert says(wrong, wrong) == enters.format("")
    assert says(right, replace(wrong, dtype="float32")) == enters.format(" in float32")
    blamed = replace(wrong, diagnosis=replace(wrong.diagnosis, blame="reference"))
    assert says(blamed).startswith("The reference of “chain” is wrong: ")
    assert says(*PAGES["undecided"]).startswith(
        "The hand-written backward pass of “chain” is undec"
    )
    assert says(*PAGES["contract"]).endswith("“chain” breaks the contract.")


def test_mistakes_of_their_own_are_told_from_inherited_ones() -> None:
    text = html_page([chain("a", "b", "c", wrong="b")])
    rows = [tr["class"] for tr in Walk(text).all("tr") if "class" in tr]
    assert rows == ["agree", "first", "inherited"]
    boxes = [g["class"] for g in Walk(text).all("g")]
    assert sorted(boxes) == ["box agree", "box first", "box unjudged", "chip inherited"]
    assert "✗ b · first wrong" in text
    assert "dL/db has the wrong sign." in text
    assert "50 within what rounding allows, 50 beyond" in text


def test_nothing_names_the_host_the_user_or_a_folder(tmp_path: Path) -> None:
    text = html_page(PAGES["agree"], f"{tmp_path}/my file.py:twin")
    assert "gradtwin replay 0:17 &#39;my file.py:twin&#39; --dtype float64" in text
    for secret in (str(tmp_path), os.getcwd(), str(Path.home()), socket.gethostname()):
        assert secret not in text
    assert not re.search(rf"\b{re.escape(getpass.getuser())}\b", text)
    for known in (f"Python {sys.version.split()[0]}", "torch 2", "core", "<dt>Seed</dt><dd>0</dd>"):
        assert known in text


# the command and the notebook --------------------------------------------------------------------


def test_the_command_writes_the_page(tmp_path: Path) -> None:
    text = planted_page(tmp_path).read_text(encoding="utf-8")
    assert os.listdir(tmp_path) == ["report.html"]
    check_structure(Walk(text))
    assert "is wrong: the mistake enters at dL/dw46." in text
    assert text.count("✗ w46 · first wrong") == 2  # one a dtype
    assert "dL/dw46 has the wrong sign." in text
    assert "<li>x6 from z6</li>" in text


def test_a_twin_of_one_case_has_a_page() -> None:
    report = verify(one_case_twin(), cases=8)
    check_structure(Walk(html_page([report], "mine.py:one")))
    assert report.graph.edges == (("x", "y"), ("x", "loss"))


def refused(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """What the command answers to options that it refuses; its twin must not even be looked for."""
    assert main(["verify", "no_such_file.py", *options]) == 2
    return capsys.readouterr().err


def test_bad_paths_are_refused_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for bad in (tmp_path, tmp_path / "missing" / "report.html"):
        message = f"gradtwin: {bad} cannot be written: give a file in a folder that exists and is "
        assert refused(capsys, "--report", str(bad)) == f"{message}yours.\n"
    both = str(tmp_path / "report")
    message = "gradtwin: two of the files to be written are the same: give each a name.\n"
    assert refused(capsys, "--report", both, "--json", both) == message
    assert not os.listdir(tmp_path)


def test_without_jinja2_one_sentence_says_what_to_install(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch_ref.report.html.find_spec", lambda name: None)
    message = refused(capsys, "--report", str(tmp_path / "report.html"))
    needed = "the page needs jinja2, which is not installed: pip install 'gradtwin[report]'."
    assert message == f"gradtwin: {needed}\n"
    assert PAGES["agree"][0]._repr_html_() is None


def test_a_page_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    file = tmp_path / "report.html"
    file.write_text("old")
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        write_html(file, PAGES["agree"])
    assert (os.listdir(tmp_path), file.read_text()) == (["report.html"], "old")


def test_a_notebook_shows_the_same_picture() -> None:
    report = PAGES["names"][0]
    text = report._repr_html_()
    assert text == html_fragment(report)
    check_structure(Walk(text))
    assert "torch_ref.compare.replay(twin, 0, 17, dtype=torch.float64)" in text
    other = html_fragment(PAGES["agree"][0])
    both = Walk(f"<div>{text}{other}</div>")
    check_structure(both)  # ids of two outputs do not meet
