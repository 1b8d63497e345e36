"""The glossary is in order and whole, and each of its words is linked where a reader meets it."""
import json
import re
import sys
from functools import cache

from conftest import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
from chapters import pages, source_of

GLOSSARY = ROOT / "nbs/glossary.ipynb"
LINK = re.compile(r"\[([^\]]+)\]\(glossary\.ipynb#([^)\s]+)\)")
# fenced code, boxes, headings, tables, quotes, hints, code, formulas, tags, pictures and links
NO_PROSE = re.compile(r"""(?xms)
    ^(`{3,}).*?^\1 | ^:::.*?^::: | ^\#+[ ].*?$ | ^\|.*?$ | ^>[ ].*?$ | <details>.*?</details>
    | `[^`\n]+` | \$[^$\n]+\$ | <[^>\n]+> | !?\[[^\]]*\]\([^)]*\)""")


def texts_of(path) -> list:
    "The Markdown cells of a page."
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [source_of(c) for c in cells if c["cell_type"] == "markdown"]


@cache
def entries() -> dict: # term -> text
    "The entries in their order; a term that comes twice is a mistake."
    parts = re.split(r"(?m)^### (.+)\n", "\n".join(texts_of(GLOSSARY)).split("## Six of")[0])
    terms = parts[1::2]
    assert len(set(terms)) == len(terms)
    return dict(zip(terms, parts[2::2], strict=True))


def anchor(heading: str) -> str:
    "The end of a link to a heading, as JupyterLab has it."
    return re.sub(r"[`*]", "", heading).replace(" ", "-")


@cache
def links() -> list: # of (page, words, anchor)
    "All links into the glossary, in the order in which the pages are read."
    return [(page, plain(words), to) for page in pages()
            for text in texts_of(page) for words, to in LINK.findall(text)]


def plain(text: str) -> str: return " ".join(text.replace("*", " ").lower().split())


@cache
def prose(page) -> str:
    "The sentences of a page without links, code and headings; not those of its exercises."
    texts = "\n\n".join(t for t in texts_of(page) if not re.search(r"(?m)^### Exercise", t))
    return plain(NO_PROSE.sub(" ¶ ", re.split(r"(?m)^## What you can now do", texts)[0]))


def sorting_key(term: str) -> str: return re.sub(r"\W", " ", term.lower().replace("'", ""))


def test_entries_are_in_the_order_of_the_alphabet():
    terms = list(entries())
    assert len(terms) > 150 and terms == sorted(terms, key=sorting_key)
    sections = re.split(r"(?m)^## (\w)$", "\n".join(texts_of(GLOSSARY)))
    for letter, text in zip(sections[1::2], sections[2::2], strict=True):
        found = re.findall(r"(?m)^### (.+)$", text)
        assert found and all(term[0].upper() == letter for term in found), letter


def test_an_entry_is_short_and_leads_to_the_place_that_explains_it():
    for term, text in entries().items():
        meaning, name, fragment = re.fullmatch(
            r"\n(.+) → \[[^\]]+\]\((\w+\.ipynb)(?:#(\S+))?\)\s*(?:## \w\n)?\s*", text).groups()
        assert 4 < len(meaning.split()) < 60, term
        assert (ROOT / "nbs" / name).exists(), term
        headings = re.findall(r"(?m)^#+ (.+?) *$", "\n".join(texts_of(ROOT / "nbs" / name)))
        assert fragment is None or fragment in map(anchor, headings), (term, name, fragment)


def test_every_link_into_the_glossary_hits_an_entry():
    there = set(map(anchor, entries()))
    assert [link for link in links() if link[2] not in there] == []


def fault(term: str) -> str:
    "What is wrong with the links to an entry; empty if there is one, and where it should be."
    found = [(page, words) for page, words, to in links() if to == anchor(term)]
    if len(found) != 1: return f"{term} is linked {len(found)} times"
    (page, words), = found
    use = re.compile(rf"(?<![\w-]){re.escape(words)}(?![\w-])")
    for earlier in pages()[:pages().index(page)]:
        if use.search(prose(earlier)):
            return f"{words!r} is linked in {page.name} and first used in {earlier.name}"
    return ""


def test_a_term_is_linked_once_on_the_first_page_that_uses_it():
    assert [found for term in entries() if (found := fault(term))] == []


def test_few_words_of_a_section_are_links():
    for page in pages():
        if page == GLOSSARY: continue
        for section in re.split(r"(?m)^## ", "\n\n".join(texts_of(page))):
            assert len(LINK.findall(section)) <= 8, (page.name, section[:40])
