"""Text indexes on disk: read when an engine opens, gone on from, not believed when damaged."""

from __future__ import annotations

import shutil
import threading
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio
from structlog.testing import capture_logs

from engine.app.contexts import MutationCtx, QueryCtx
from engine.app.decorators import mutation, query
from engine.app.schema import Schema, Table
from engine.app.validators import v
from engine.host import Engine
from engine.indexes.checkpoints import Checkpoints
from engine.indexes.files import read_arrays, write_arrays
from engine.indexes.text import index as text_index
from tests.node.nodes import application

TOLD = ("indexes.read", "indexes.built", "indexes.damaged")
SCHEMA = Schema(notes=Table(v.any()).search_index("by_text", search_field="text"))


@mutation
async def add(ctx: MutationCtx, texts: list[str]) -> None:
    for text in texts:
        await ctx.db.insert("notes", {"text": text})


@mutation
async def rewrite(ctx: MutationCtx, old: str, new: str | None) -> None:
    async for doc in ctx.db.query("notes"):
        if doc["text"] == old and new is None:
            await ctx.db.delete(doc["_id"])
        elif doc["text"] == old:
            await ctx.db.patch(doc["_id"], {"text": new})


@query
async def look(ctx: QueryCtx, text: str) -> list[str]:
    notes = ctx.db.query("notes").with_search_index("by_text", lambda s: s.search("text", text))
    return [doc["text"] for doc in await notes.collect()]


@asynccontextmanager
async def opened(data: Path) -> AsyncIterator[tuple[Engine, list[str]]]:
    """An engine, and what became of its indexes when it opened."""
    with capture_logs() as logs:
        async with Engine.open(data, app=[add, rewrite, look, SCHEMA]) as engine:
            events = [str(each["event"]) for each in logs]
            yield engine, [event for event in events if event in TOLD]


async def filled(data: Path) -> None:
    """Documents in several segments, some of them gone."""
    async with opened(data) as (engine, events):
        assert ["indexes.built"] == events
        for number in range(6):
            await engine.mutation(add, [f"fox {number}", f"fox fox {number}", f"cat {number}"])
        await engine.mutation(rewrite, "fox 3", None)
        await engine.mutation(rewrite, "cat 2", "fox fox fox")
        assert FOUND == await engine.query(look, "fox")


FOUND = [
    "fox fox fox",
    *(f"fox fox {n}" for n in range(5, -1, -1)),
    *(f"fox {n}" for n in (5, 4, 2, 1, 0)),
]


async def test_an_engine_that_opens_reads_its_files_and_looks_at_no_document(
    tmp_path: Path,
) -> None:
    await filled(tmp_path)

    async with opened(tmp_path) as (engine, events):
        assert ["indexes.read"] == events
        assert FOUND == await engine.query(look, "fox")
        await engine.mutation(rewrite, "fox fox fox", "a fox")
        await engine.mutation(add, ["fox fox fox fox"])
    async with opened(tmp_path) as (engine, events):
        assert ["indexes.read"] == events
        found = await engine.query(look, "fox")
        assert ["fox fox fox fox", *FOUND[1:9], "a fox", *FOUND[9:]] == found, "the newer first"


async def test_after_a_crash_the_log_has_what_the_files_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, crashed = tmp_path / "before", tmp_path / "crashed"
    await filled(before)
    monkeypatch.setattr(text_index, "TAIL_SLOTS_MAX", 3)
    async with opened(before) as (engine, _):
        for number in range(3):
            await engine.mutation(add, [f"fox later {number}"])
            await engine.mutation(rewrite, f"fox fox {number}", None)
        expected = await engine.query(look, "fox")
        manifest = next((before / "indexes").glob("*/manifest"))
        written = None
        while written != (written := manifest.stat().st_mtime_ns):  # noqa: ASYNC110
            await trio.sleep(0.3)  # folds come to their end
        shutil.copytree(before, crashed)

    async with opened(crashed) as (engine, events):
        assert ["indexes.read"] == events
        assert expected == await engine.query(look, "fox")


def flip(at: Callable[[int], int]) -> Callable[[Path], None]:
    def flipped(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[at(len(data))] ^= 4
        path.write_bytes(data)

    return flipped


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-70])


@pytest.mark.parametrize("name", ["manifest", "*.arrays"])
@pytest.mark.parametrize(
    "damage",
    [flip(lambda _: 2), flip(lambda n: n // 2), flip(lambda n: n - 70), cut, Path.unlink],
    ids=["head", "middle", "end", "cut", "missing"],
)
async def test_files_that_are_damaged_are_not_believed(
    tmp_path: Path, name: str, damage: Callable[[Path], Any]
) -> None:
    await filled(tmp_path)
    (path,) = (tmp_path / "indexes").glob(f"*/{name}")
    damage(path)

    async with opened(tmp_path) as (engine, events):
        is_missing = damage == Path.unlink and name == "manifest"
        assert [*([] if is_missing else ["indexes.damaged"]), "indexes.built"] == events
        assert FOUND == await engine.query(look, "fox")
        told = [one async for one in engine.node.keeper.problems() if one is not None]
        assert len(told) == (not is_missing)
        assert all(
            "the files of the index notes.by_text were not what was written" in one for one in told
        )
    async with opened(tmp_path) as (engine, events):
        assert ["indexes.read"] == events, "they are written anew"
        assert [] == [one async for one in engine.node.keeper.problems() if one is not None]


def put_a_file_in_place_of(data: Path, name: str) -> None:
    (folder,) = data.glob(name)
    shutil.rmtree(folder)
    folder.write_text("what is this")


@pytest.mark.parametrize("name", ["indexes", "indexes/*"])
async def test_a_file_in_the_place_of_a_folder_makes_room_for_it(tmp_path: Path, name: str) -> None:
    await filled(tmp_path)
    put_a_file_in_place_of(tmp_path, name)

    async with opened(tmp_path) as (engine, events):
        assert "indexes.built" == events[-1]
        assert FOUND == await engine.query(look, "fox")
    async with opened(tmp_path) as (engine, events):
        assert ["indexes.read"] == events


async def test_a_segment_that_bears_the_name_of_another_is_not_believed(tmp_path: Path) -> None:
    data, others = tmp_path / "data", tmp_path / "others"
    await filled(data)
    await filled(others)
    (segment,), (foreign,) = (list(one.glob("indexes/*/*.arrays")) for one in (data, others))
    shutil.copy(foreign, segment)

    async with opened(data) as (engine, events):
        assert ["indexes.damaged", "indexes.built"] == events
        assert FOUND == await engine.query(look, "fox")


async def test_files_of_another_history_are_not_believed(tmp_path: Path) -> None:
    data, backup = tmp_path / "data", tmp_path / "backup"
    await filled(data)
    shutil.copytree(data, backup)
    async with opened(data) as (engine, _):
        await engine.mutation(add, ["fox of a day that was not restored"])
    shutil.rmtree(backup / "indexes")
    shutil.copytree(data / "indexes", backup / "indexes")

    async with opened(backup) as (engine, events):
        assert ["indexes.built"] == events
        assert FOUND == await engine.query(look, "fox")


async def test_a_segment_has_its_file_when_it_is_folded_and_those_it_was_made_of_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_index, "TAIL_SLOTS_MAX", 4)
    async with opened(tmp_path) as (engine, _):
        for number in range(40):
            await engine.mutation(add, [f"fox {number}"])

        assert 40 == len(await engine.query(look, "fox"))
    files = list((tmp_path / "indexes").glob("*/*.arrays"))
    assert 1 <= len(files) <= 6
    async with opened(tmp_path) as (engine, events):
        assert ["indexes.read"] == events
        assert [f"fox {n}" for n in range(39, -1, -1)] == await engine.query(look, "fox")


async def test_of_an_index_that_goes_while_it_is_written_no_file_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_index, "TAIL_SLOTS_MAX", 1)
    write = Checkpoints.write
    begun, may_go_on, written = threading.Event(), threading.Event(), threading.Event()

    def slowly(*args: Any) -> Any:
        begun.set()
        assert may_go_on.wait(10)
        install = write(*args)
        written.set()
        return install

    async with opened(tmp_path) as (engine, _):
        (folder,) = (tmp_path / "indexes").iterdir()
        monkeypatch.setattr(Checkpoints, "write", slowly)
        await engine.mutation(add, ["fox"])
        assert await trio.to_thread.run_sync(begun.wait, 10)

        await engine.node.push(application(add, Schema(notes=Table(v.any()))))
        await trio.sleep(0.1)
        may_go_on.set()
        assert await trio.to_thread.run_sync(written.wait, 10)

        with trio.fail_after(5):
            while folder.exists():  # noqa: ASYNC110 - nobody tells when it is gone
                await trio.sleep(0.01)


def test_to_write_arrays_takes_no_room_beside_them(tmp_path: Path) -> None:
    rows = np.arange(1 << 20, dtype=np.float32).reshape(-1, 16)
    arrays = {"rows": rows, "none": rows[:0], "names": np.array([b"a", b"bc"])}
    tracemalloc.start()
    write_arrays(tmp_path / "1.arrays", arrays)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak_bytes < rows.nbytes // 4
    found = read_arrays(tmp_path / "1.arrays")
    assert list(arrays) == list(found)
    assert all(np.array_equal(arrays[name], found[name]) for name in arrays)


def test_what_comes_after_the_lead_of_an_array_is_aligned(tmp_path: Path) -> None:
    arrays = {"first": np.arange(3), "led": np.arange(100), "last": np.arange(5)}

    write_arrays(tmp_path / "1.arrays", arrays, leads={"led": 8})

    found = read_arrays(tmp_path / "1.arrays")
    assert [0, 56, 0] == [found[name].ctypes.data % 64 for name in arrays]
    assert all(np.array_equal(arrays[name], found[name]) for name in arrays)


async def test_an_index_that_is_built_anew_while_it_is_written_has_the_files_of_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await filled(tmp_path)
    monkeypatch.setattr(text_index, "TAIL_SLOTS_MAX", 1)
    write = Checkpoints.write
    begun, may_go_on = threading.Event(), threading.Event()

    def slowly(*args: Any) -> Any:
        begun.set()
        assert may_go_on.wait(10)
        return write(*args)

    async with opened(tmp_path) as (engine, _):
        keeper = engine.node.keeper
        (status,) = keeper.statuses()
        monkeypatch.setattr(Checkpoints, "write", slowly)
        await engine.mutation(add, ["fox fox fox fox"])
        assert await trio.to_thread.run_sync(begun.wait, 10)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keeper.rebuild, status.index_id)
            await trio.sleep(0.1)
            assert ["notes.by_text"] == keeper.building
            assert ["fox fox fox fox", *FOUND] == await engine.query(look, "fox")
            may_go_on.set()

        assert ["fox fox fox fox", *FOUND] == await engine.query(look, "fox")
    with capture_logs() as logs:
        async with Engine.open(tmp_path, app=[add, rewrite, look, SCHEMA]) as engine:
            assert ["fox fox fox fox", *FOUND] == await engine.query(look, "fox")
    (told,) = (each["documents"] for each in logs if each["event"] == "indexes.read")
    assert 18 == told
