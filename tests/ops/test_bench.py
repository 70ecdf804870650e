"""`python -m bench`: the form of its figures, and that a quick run is quick."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import trio
from wsproto.connection import Connection, ConnectionType
from wsproto.events import TextMessage

import bench.__main__ as command
from bench.compare import _postgres, scheduler
from bench.crowd import messages_in
from bench.harness import Bench, Entry, Result, entries, percentile
from bench.macro import (
    _aggregating,
    _limiting,
    _migrating,
    _pooling,
    backfill,
    components,
    fanout,
    macro,
    past,
    sync,
    transfer,
)
from bench.macro import verify as verify_bench
from bench.macro._bare import BarePeople
from bench.people import data_file, fields_of, load, schema
from bench.served import BARE, LISTEN, tells
from engine.app.contexts import MutationCtx
from engine.app.decorators import mutation
from engine.host import Engine
from engine.indexes.verify import Findings, verify
from engine.model.limits import Limits
from engine.store.lmdb_store import LmdbStore

COUNTING = '''
"""How far does it count?"""
from bench.harness import Result
def run(bench):
    assert [] == list(bench.directory.iterdir())
    params = {"seed": bench.seed}
    yield Result(name="counting", params=params, metric="rate", value=bench.budget_s, unit="/s")
    yield Result(name="counting", params={}, metric="rate", value=2, unit="/s", peer="abacus")
'''
ENDLESS = '''
"""Does it ever end?"""
def run(bench):
    while True:
        pass
    yield
'''
SILENT = '''
"""Does it say anything?"""
def run(bench):
    return []
'''


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Entry]:
    """Three benches in a package that is named after the test, so that none is imported twice."""
    package = f"benches_{tmp_path.name}"
    folder = tmp_path / package / "micro"
    folder.mkdir(parents=True)
    (folder / "counting.py").write_text(COUNTING)
    (folder / "never_ending.py").write_text(ENDLESS)
    (folder / "silent.py").write_text(SILENT)
    monkeypatch.syspath_prepend(tmp_path)
    return entries(tmp_path / package, package)


def test_the_json_has_the_machine_the_command_and_every_figure(
    known: dict[str, Entry], tmp_path: Path
) -> None:
    file = tmp_path / "figures.json"

    arguments = ["counting", "--quick", "--seed", "9", "--json", str(file)]
    status = command.main([*arguments, "--directory", str(tmp_path / "disk")], known)

    document = json.loads(file.read_text())
    assert status == 0
    assert document["results"] == [
        {
            "name": "counting",
            "params": {"seed": 9},
            "metric": "rate",
            "value": command.QUICK_S,
            "unit": "/s",
            "peer": None,
        },
        {
            "name": "counting",
            "params": {},
            "metric": "rate",
            "value": 2,
            "unit": "/s",
            "peer": "abacus",
        },
    ]
    assert document["command"].startswith("python -m bench counting --quick --seed 9 --json ")
    machine = document["machine"]
    assert machine["fdatasync_ms"] > 0
    assert machine["dsync_write_ms"] > 0
    assert machine["cores"] > 0
    assert machine["python"].startswith("CPython 3.")
    assert [] == list((tmp_path / "disk").iterdir())


def test_a_quick_run_is_cut_short_and_has_failed(
    known: dict[str, Entry],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(command, "QUICK_S_MAX", 2.0)

    status = command.main(["never-ending", "--quick", "--directory", str(tmp_path / "d")], known)

    assert status == 1
    assert capsys.readouterr().err == "never-ending --quick took more than 2 s\n"


def test_a_bench_without_a_figure_has_failed(
    known: dict[str, Entry], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = command.main(["silent", "--directory", str(tmp_path / "d")], known)

    assert status == 1
    assert capsys.readouterr().err == "silent measured nothing\n"


def test_one_part_of_a_bench_is_measured_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    figure = Result(name="one", params={}, metric="rate", value=1, unit="/s")
    parts = {"one": lambda _: [figure], "two": lambda _: pytest.fail("not asked for")}
    monkeypatch.setattr(components, "PARTS", parts)
    known = {"components": entries()["components"]}

    status = command.main(["components", "--part", "one", "--directory", str(tmp_path)], known)
    misused = command.main(["components", "--part", "three"], known)

    assert (0, 2) == (status, misused)
    said = capsys.readouterr()
    assert "one () rate: 1 /s" in said.out
    assert "components has no part three; it has ['one', 'two']." in said.err


def test_an_unknown_bench_is_answered_with_the_nearest(
    known: dict[str, Entry], capsys: pytest.CaptureFixture[str]
) -> None:
    status = command.main(["countin"], known)

    assert status == 2
    assert "Did you mean counting?" in capsys.readouterr().err


def test_the_list_has_every_bench_with_its_question(
    known: dict[str, Entry], capsys: pytest.CaptureFixture[str]
) -> None:
    status = command.main(["--list"], known)

    assert status == 0
    assert capsys.readouterr().out.splitlines() == [
        "counting: How far does it count?",
        "never-ending: Does it ever end?",
        "silent: Does it say anything?",
    ]


def test_the_flushes_of_this_disk_can_be_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = command.main(["flush", "--seconds", "0.2", "--directory", str(tmp_path)], entries())

    figures = [line for line in capsys.readouterr().out.splitlines() if line.startswith("flush ")]
    assert status == 0
    assert 4 == len(figures)
    assert all(line.endswith(" ms") for line in figures)


def test_the_real_benches_can_be_read() -> None:
    assert "flush" in entries()
    assert all(entry.question.endswith("?") for entry in entries().values())


@pytest.mark.parametrize(
    ("share", "expected"), [(0.5, 2), (0.51, 3), (0.75, 3), (0.99, 4), (1, 4), (0.01, 1)]
)
def test_a_percentile_is_a_sample_that_was_measured(share: float, expected: float) -> None:
    assert expected == percentile([4, 1, 3, 2], share)


def test_nothing_has_no_percentile() -> None:
    with pytest.raises(ValueError, match="0 samples"):
        percentile([], 0.5)


async def test_transfers_arrive_in_an_open_loop_under_every_distribution(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "QUICK_ACCOUNTS", 1_000)
    results: list[Result] = []

    await transfer._measure_ours(
        Bench(directory=tmp_path, seed=1, quick=True, budget_s=1.5), results
    )

    rates = [each.params for each in results if each.metric == "durable_tx_per_s"]
    assert {0.0, 1.5} == {p["alpha"] for p in rates if p["callers"] == "open"}
    assert all("callers" in params for params in rates)


@mutation
async def change_some(ctx: MutationCtx) -> list[str]:
    """Insert one, delete another and patch a third; the names of those that are left near them."""
    people = ctx.db.query("people").with_index("by_name")
    first, second, *_ = await people.take(2)
    await ctx.db.delete(first["_id"])
    await ctx.db.patch(second["_id"], {"name": "name 00000001!", "score": 0.5})
    await ctx.db.insert("people", fields_of(0, 1))
    assert await ctx.db.count("people") == 10_000
    return [person["name"] for person in await people.take(3)]


async def test_what_is_loaded_is_sound_and_an_engine_goes_on_from_it(tmp_path: Path) -> None:
    await trio.to_thread.run_sync(load, tmp_path, 10_000)

    loaded = found_in(tmp_path)
    async with Engine.open(tmp_path, app=[schema, change_some]) as engine:
        names = await engine.mutation(change_some)
    changed = found_in(tmp_path)

    assert loaded.is_sound, loaded.problems
    assert 1 == loaded.records
    assert loaded.entries >= 4 * 10_000
    assert ["name 00000000", "name 00000001!", "name 00000002"] == names
    assert changed.is_sound, changed.problems
    assert loaded.rows == changed.rows


def found_in(directory: Path) -> Findings:
    with LmdbStore.open(directory, writer="thread") as store:
        *_, found = verify(store.snapshot)
    return found


async def test_the_bare_libraries_find_what_the_engine_finds(tmp_path: Path) -> None:
    ours, copy = tmp_path / "ours", tmp_path / "bare.mdb"
    await trio.to_thread.run_sync(load, ours, 500)
    macro.copy_durably(data_file(ours), copy)
    async with Engine.open(ours, app=macro.FUNCTIONS) as engine:
        table = engine.node.committer.head.catalog.by_name["", "people"]
        with BarePeople(copy, table) as bare:
            fields: macro.Fields = {"name": "name 00000103!", "email": "", "score": 1, "bio": ""}
            bare.insert([bare.newcomer(dict(fields), bytes(8))])
            await engine.mutation(macro.insert, people=[fields])
            theirs, _ = bare.range(bare.place("name 00000100"), 100)
            found = await engine.query(macro.range_of, call=1, name="name 00000100")
            person = found[7]["_id"]
            bare.rescore((person, 0.25))
            await engine.mutation(macro.rescore, person=person, score=0.25)
            changed = await engine.query(macro.get, call=2, person=person)

            assert [doc["name"] for doc in found] == [doc["name"] for doc in theirs]
            assert found[7] == theirs[7]
            assert changed == bare.gets([person])[0]


def test_each_goal_of_the_macro_bench_is_a_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(macro, "QUICK_SIZES", (300, 1_000))

    results = list(macro.run(Bench(directory=tmp_path, seed=1, quick=True, budget_s=1.5)))

    asked = [(r.params["what"], r.peer) for r in results if r.metric == "p99"]
    goals = [result.params["what"] for result in results if result.name == "macro-goal"]
    assert len(asked) == 2 * len(set(asked))  # each at both sizes
    assert {None, macro.PEER} == {peer for _, peer in asked}
    assert f"{macro.RANGE_INSIDE}: speed by theirs" in goals
    assert f"{macro.INSERT}: growth by theirs" in goals
    assert f"{macro.GET}: slowest size by quickest" in goals
    assert [] == list(tmp_path.iterdir())


def test_mutations_are_measured_without_a_backfill_and_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backfill, "QUICK_DOCUMENTS", 2_000)

    results = list(backfill.run(Bench(directory=tmp_path, seed=1, quick=True, budget_s=1)))

    beside = {r.params["beside"]: r.value for r in results if r.metric == "mutations_per_s"}
    assert {"nothing", "a backfill"} == set(beside)
    assert all(beside.values())
    assert any(result.metric == "documents_per_s" for result in results)


def test_the_past_is_measured_and_what_it_is_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(past, "QUICK_CHANGED", 2_000)
    monkeypatch.setattr(past, "LIMITS", Limits(past_bytes_max=1))

    results = list(past.run(Bench(directory=tmp_path, seed=1, quick=True, budget_s=2)))

    first = {r.params["beside"]: r.value for r in results if r.metric == "first_answer"}
    known = {f"the first {name} of then" for name in past.READS}
    assert {*known, "the first range of 100 of then by an index that is no more"} == set(first)
    assert {"then", "now"} == {r.params["of"] for r in results if "of" in r.params}
    assert all(r.value > 0 for r in results if r.metric == "files")


def test_decisions_are_measured_of_each_limit(tmp_path: Path) -> None:
    results = list(_limiting.run(Bench(directory=tmp_path, seed=1, quick=True, budget_s=1)))

    ours = {r.params["limit"]: r.value for r in results if (r.metric, r.peer) == ("rate", None)}
    assert set(_limiting.NAMES) == set(ours)
    assert all(ours.values())


def test_a_migration_is_measured_beside_mutations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_migrating, "QUICK_DOCUMENTS", 1_000)

    results = list(_migrating.run(Bench(directory=tmp_path, seed=1, quick=True, budget_s=2)))

    beside = {r.params["beside"] for r in results if r.metric == "mutations_per_s" and r.value}
    assert {"nothing", "a migration"} == beside
    rates = {r.params["ranges"]: r.value for r in results if r.metric == "documents_per_s"}
    assert set(_migrating.RANGES) == set(rates)


def test_an_aggregate_is_measured_beside_a_table_of_sqlite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_aggregating, "QUICK_SIZES", (1_000, 2_000))

    results = list(_aggregating.run(Bench(directory=tmp_path, seed=1, quick=True, budget_s=1)))

    for operation in _aggregating.OPERATIONS:
        found = [r for r in results if (r.name, r.metric) == (f"aggregate {operation}", "p50")]
        assert {None, _aggregating.SQLITE} <= {r.peer for r in found if r.value}
        assert {1_000, 2_000} == {r.params["items"] for r in found}
    crowds = {r.params["queued"] for r in results if r.value and r.metric == "applied"}
    assert {True, False} == crowds


async def test_works_of_a_pool_are_measured_with_failures_and_without(tmp_path: Path) -> None:
    results: list[Result] = []
    await _pooling.measure(tmp_path, _pooling.AT_ONCE, results)

    assert {10, 100} == {r.params["at a time"] for r in results if r.value}
    assert {True, False} == {r.params["every tenth fails once"] for r in results}


def test_transfers_are_measured_beside_a_verify_that_comes_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify_bench, "QUICK_ACCOUNTS", 1_000)

    results = list(verify_bench.run(Bench(directory=tmp_path, seed=1, quick=True, budget_s=2)))

    figures = {(r.params["beside"], r.metric): r.value for r in results}
    assert figures["verify", "verified"] >= 1
    assert figures["verify", "log_growth"] > 0
    assert ("nothing", "file_growth") in figures


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients of a fan-out, few enough for a test."""
    monkeypatch.setattr(fanout, "QUICK_SIZES", (3, 20))
    monkeypatch.setattr(fanout, "READERS", 3)
    monkeypatch.setattr(fanout, "SLEEPERS", 2)
    monkeypatch.setattr(fanout, "LARGE_BODY", "." * 60_000)
    monkeypatch.setattr(fanout, "FILLING_ROUNDS", 12)


@pytest.mark.usefixtures("few")
def test_a_fan_out_is_measured_beside_the_bare_library(tmp_path: Path) -> None:
    results = list(fanout.run(Bench(directory=tmp_path, seed=1, quick=True, budget_s=1)))

    told = {(r.params["subscribers"], r.peer) for r in results if r.metric == fanout.PER_CORE}
    goals = [result.params["what"] for result in results if result.name == "fanout-goal"]
    assert {(3, None), (20, None), (3, fanout.PEER), (20, fanout.PEER)} <= told
    assert "one touched: most queries by fewest" in goals
    assert "beside sleepers by without" in goals
    assert all(result.value > 0 for result in results if result.metric != "memory")


def test_a_fan_out_that_tells_somebody_twice_is_not_measured(tmp_path: Path) -> None:
    with fanout._audience(BARE, tmp_path) as audience:
        [each] = audience.join([(LISTEN,)])
        each.say(LISTEN)
        assert LISTEN.encode() == next(message for _, message in audience.crowd.hear())

        with pytest.raises(AssertionError, match="told again"):
            for _ in range(2):
                audience.tell(tells("order"), "order")


def test_mutations_through_websockets_are_measured_beside_a_bare_echo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync, "CONNECTIONS", 3)

    results = list(sync.run(Bench(directory=tmp_path, seed=1, quick=True, budget_s=1)))

    kinds = {(name, peer) for name in (sync.MANY, sync.ONE) for peer in (None, sync.PEER)}
    figures = {(r.name, r.peer, r.metric): r.value for r in results}
    goals = [result.params["what"] for result in results if result.name == "sync-goal"]
    assert all(figures[*kind, "p99"] >= figures[*kind, "p50"] > 0 for kind in kinds)
    assert all(figures[*kind, sync.RATE] > 0 for kind in kinds)
    assert 6 == len(goals)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs few enough for a test, and nobody beside ours, who need not be installed."""
    monkeypatch.setattr(scheduler, "QUICK_OUTSTANDING", (200, 400))
    monkeypatch.setattr(scheduler, "LOADED_AT_ONCE", 100)
    monkeypatch.setattr(scheduler, "QUICK_DRAINED", 300)
    monkeypatch.setattr(scheduler, "QUICK_QUEUED", 300)
    monkeypatch.setattr(scheduler, "PEERS", (("SQLite", 1),))
    monkeypatch.setattr(scheduler, "what_lacks", lambda _: "it is not needed")


@pytest.mark.usefixtures("short")
def test_each_goal_of_the_scheduler_is_a_figure(tmp_path: Path) -> None:
    results = list(scheduler.run(Bench(directory=tmp_path, seed=1, quick=True, budget_s=1)))

    goals = {result.params["what"]: result.value for result in results if "goal" in result.name}
    queued = {r.params["each"]: r.value for r in results if r.name == "scheduler-queued-and-run"}
    started = [r.params["running"] for r in results if r.name == "scheduler-start"]
    assert {"enqueue", "drain", "memory", "running by limit"} < goals.keys()
    assert 0 < goals["running by limit"] <= 1
    assert [0, 0, 10, 10, 0, 0, 10, 10] == started
    assert {"nothing", "row"} == queued.keys()


@pytest.mark.usefixtures("short")
async def test_jobs_of_which_one_ran_twice_are_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(directory=tmp_path, seed=1, quick=True, budget_s=1)

    def and_again(durable: Any) -> scheduler.Tally:
        return scheduler_tally(ran=Counter([7]), durable=durable)

    scheduler_tally = scheduler.Tally
    monkeypatch.setattr(scheduler, "Tally", and_again)
    with pytest.raises(AssertionError, match="each ran once"):
        await scheduler._drain(bench, [])


def test_a_postgresql_is_there_for_a_block_and_flushes_each_commit() -> None:
    folder = _postgres.binaries()
    if folder is None:
        pytest.skip("no PostgreSQL here")
    with (
        tempfile.TemporaryDirectory() as parent,
        _postgres.cluster(folder, Path(parent, "cluster")) as url,
    ):
        asked = [str(folder / "psql"), url, "-Atc", "SHOW fsync", "-c", "SHOW synchronous_commit"]
        answered = subprocess.run(asked, capture_output=True, text=True, check=True).stdout

    assert ["on", "on"] == answered.split()


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
@pytest.mark.parametrize("cut", [1, 3, 9, 11, 140])
def test_a_crowd_takes_frames_apart_wherever_they_were_cut(size: int, cut: int) -> None:
    server = Connection(ConnectionType.SERVER)
    texts = ["x" * size, "second"]
    data = b"".join(bytes(server.send(TextMessage(data=text))) for text in texts)

    early, rest = messages_in(data[:cut])
    late, rest = messages_in(rest + data[cut:])

    assert [text.encode() for text in texts] == early + late
    assert b"" == rest
