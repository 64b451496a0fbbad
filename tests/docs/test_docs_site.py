"""The site: it builds without a warning, has every page, and loads nothing from other hosts."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PICTURES = sorted((DOCS / "pictures").iterdir())
LOADS = {"src", "srcset", "poster", "data", "action"}  # attributes that make a browser fetch, whatever the element
ZENSICAL = Path(sys.executable).with_name("zensical")


def build(folder: Path) -> subprocess.CompletedProcess[str]:
    """Build the site from a copy of the sources, with warnings as errors."""
    command = [str(ZENSICAL), "build", "--strict"]
    environment = os.environ | {"NO_COLOR": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def copy_sources(folder: Path) -> Path:
    shutil.copy(ROOT / "zensical.toml", folder)
    shutil.copytree(DOCS, folder / "docs")
    return folder


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = copy_sources(tmp_path_factory.mktemp("site"))
    process = build(folder)
    assert process.returncode == 0, process.stdout + process.stderr
    return folder / "site"


class Page(HTMLParser):
    """The addresses that a page of the site loads, and its pictures."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.pictures: list[dict[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = LOADS | ({"href"} if tag in {"link", "use", "image"} else set())
        self.loads += [value or "" for name, value in attrs if name in names]
        self.loads += re.findall(r"url\(([^)]*)\)", dict(attrs).get("style") or "")
        if tag == "img":
            self.pictures.append(dict(attrs))


def source_pages(site):
    """Return the pages of the copy that the site was built from."""
    docs = site.parent / "docs"
    return [path.relative_to(docs) for path in docs.rglob("*.md") if "changelog" not in path.parts]


def test_every_page_is_built_and_in_the_navigation(site):
    pages = source_pages(site)
    for page in pages:
        assert (site / page.with_suffix(".html")).is_file(), page
    assert pages_in_navigation(tomllib.loads((site.parent / "zensical.toml").read_text())["project"]["nav"]) == {
        page.as_posix() for page in pages
    }, "each page stands in `nav` of zensical.toml"
    assert not list(site.glob("changelog/**/*.html"))


def pages_in_navigation(nav: list) -> set[str]:
    """Return the pages of a navigation, which has sections within sections."""
    values = [value for entry in nav for value in (entry.values() if isinstance(entry, dict) else [entry])]
    return {page for value in values for page in (pages_in_navigation(value) if isinstance(value, list) else [value])}


def test_no_page_loads_anything_from_another_host(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > len(source_pages(site))
    for path in pages:
        for address in Page(path.read_text()).loads:
            assert not re.match(r"\s*['\"]?(?:https?:)?//", address), f"{path.name} loads {address}"


def test_no_style_loads_anything_from_another_host_and_the_policy_forbids_it(site):
    styles = list(site.rglob("*.css"))
    assert styles
    for path in styles:
        assert not re.search(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//", path.read_text()), path.name
    for path in site.rglob("*.html"):  # the theme's script knows where to get help for diagrams, and for old browsers
        assert POLICY in path.read_text(), path.name


POLICY = "http-equiv=\"Content-Security-Policy\" content=\"default-src 'self' file: 'unsafe-inline' data: blob:\""


def test_the_search_knows_what_deletes_a_conversation(site):
    """The theme's search looks for all words in the title, the path and the text of a section."""
    items = {item["location"]: item for item in json.loads((site / "search.json").read_text())["items"]}
    assert items["recipes/delete.html"]["title"] == "Delete a conversation with <code>History.delete</code>"
    method = items["reference/history.html#historydelete"]
    assert method["title"] == "History.delete"
    assert "Delete" in method["text"]
    assert "conversation" in method["text"]


def test_a_console_block_is_copied_without_prompts_and_output(site):
    """The theme hides them while its button copies; for that each line of output stands in an element of its own."""
    page = (site / "tutorial.html").read_text()
    assert "[data-md-copying] .gp, [data-md-copying] span:has(> .go) { display: none }" in page
    assert page.count('<span class="go">') >= 10
    assert len(re.findall(r'<span id="__line-\d+-\d+"><span class="go">', page)) == page.count('<span class="go">')
    script = next((site / "assets" / "javascripts").glob("bundle*.js")).read_text()
    assert '.setAttribute("data-md-copying","")' in script


def test_every_picture_has_a_description_and_loads_nothing(site):
    for path in site.rglob("*.html"):
        for picture in Page(path.read_text()).pictures:
            assert picture.get("alt"), f"{path.name}: {picture}"
    assert PICTURES
    for path in PICTURES:
        root = ET.fromstring(path.read_text())
        texts = {each.tag.rpartition("}")[2]: (each.text or "").strip() for each in root}
        assert root.get("role") == "img"
        assert texts["title"]
        assert texts["desc"]
        assert path.stat().st_size < 12_000
        assert "href" not in path.read_text()
        assert any(path.name in page.read_text() for page in DOCS.glob("*.md"))


@pytest.mark.parametrize("wrong", ["[a page](nowhere.md)", "[a heading](using.md#nowhere)", "[a]: unused.md"])
def test_a_broken_link_fails_the_build(tmp_path, wrong):
    page = copy_sources(tmp_path) / "docs" / "index.md"
    page.write_text(f"{page.read_text()}\n{wrong}\n")
    process = build(tmp_path)
    assert process.returncode != 0
    assert re.search(r"\b[12] issues? found", process.stdout + process.stderr)
