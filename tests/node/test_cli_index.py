"""`headrace index`: what there is, and how one is built anew."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from engine.cli.command import main
from engine.indexes.text import check
from engine.indexes.text.words import TextEntry

APP = """
from headrace import MutationCtx, Schema, Table, mutation, v

schema = Schema(notes=Table({"text": v.string()}).search_index("by_text", search_field="text"))


@mutation
async def add(ctx: MutationCtx, texts: list[str]) -> None:
    for text in texts:
        await ctx.db.insert("notes", {"text": text})
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "pyproject.toml").write_text('[tool.headrace]\napp = "app.py"\n')
    monkeypatch.chdir(tmp_path)
    assert 0 == main(["run", "app:add", '{"texts": ["fox", "cat", ""]}'])
    yield tmp_path
    structlog.reset_defaults()


def test_indexes_are_listed_shown_and_rebuilt(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert 0 == main(["index", "list"])
    assert "notes.by_text" in capsys.readouterr().out

    assert 0 == main(["index", "show", "notes.by_text"])
    shown = json.loads(capsys.readouterr().out)
    assert (True, "search", 2) == (shown["answers"], shown["kind"], shown["documents"])
    assert shown["bytes"] > 0

    assert 0 == main(["index", "rebuild", "notes.by_text"])
    assert "rebuilt notes.by_text: 2 documents" in capsys.readouterr().err


def test_an_index_that_is_not_there_is_told_which_are(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert 0 != main(["index", "show", "notes.by_title"])
    assert "there are notes.by_text" in capsys.readouterr().err


def test_verify_looks_whether_an_index_has_what_its_documents_have(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert 0 == main(["verify"])
    assert "sound" in capsys.readouterr().out
    monkeypatch.setattr(check, "entry_of", lambda *_: TextEntry({"dog": 1}, ()))

    assert 1 == main(["verify"])
    assert "problem: the index 'by_text' has" in capsys.readouterr().err
