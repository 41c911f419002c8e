"""docs/glossary.md is what the vocabulary says."""

from pathlib import Path

from lens.glossary import page

ROOT = Path(__file__).parents[2]


def test_the_glossary_is_current():
    written = (ROOT / "docs" / "glossary.md").read_text()
    assert written == page(), "run: python -m lens.glossary > docs/glossary.md"
