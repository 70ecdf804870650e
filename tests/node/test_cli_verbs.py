"""Verbs on a directory that nobody has open, and what they refuse."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import structlog

from engine.cli import main
from engine.cli.client import AdminClient
from engine.cli.command import EXIT_CODES
from engine.cli.failures import Exit
from engine.cli.imports import read_documents
from engine.cli.shell import converse
from engine.errors import UsageError
from tests.node.command_line import headrace

APP = """
from headrace import Document, MutationCtx, QueryCtx, Schema, Table, mutation, query
from headrace import UserIdentity


class Person(Document):
    name: str
    age: float


schema = Schema(people=Table(Person))


@query
async def who(ctx: QueryCtx) -> UserIdentity | None:
    return await ctx.auth.get_user_identity()


@mutation
async def count(ctx: MutationCtx) -> int:
    return await ctx.db.count(Person)
"""

ANYTHING = {"fieldType": {"type": "any"}, "optional": False}
VERBS = (
    "init",
    "dev",
    "serve",
    "push",
    "run",
    "data",
    "logs",
    "log",
    "replay",
    "import",
    "shell",
    "jobs",
    "crons",
    "index",
    "stats",
    "pause",
    "resume",
    "check",
    "codegen",
    "function-spec",
    "verify",
    "version",
)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "pyproject.toml").write_text('[tool.headrace]\napp = "app.py"\n')
    return tmp_path


@pytest.fixture
def in_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The command line in this process, which it tells where traces go."""
    monkeypatch.chdir(tmp_path)
    yield
    structlog.reset_defaults()


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.usefixtures("in_process")
def test_the_help_of_a_verb_has_examples(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([verb, "--help"])

    assert 0 == ended.value.code
    assert f"\nexamples:\n  headrace {verb}" in capsys.readouterr().out


@pytest.mark.usefixtures("in_process")
def test_the_help_tells_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])

    assert EXIT_CODES in " ".join(capsys.readouterr().out.split())


@pytest.mark.slow
def test_limits_are_those_of_the_project(project: Path) -> None:
    file = project / "pyproject.toml"
    application = file.read_text()
    identity = '{"issuer": "example.com", "subject": "ada"}'

    file.write_text(f"{application}[tool.headrace.limits]\nresult_bytes_max = 1\n")
    held_to = headrace(project, "run", "app:who", "--identity", identity)
    file.write_text(f"{application}[tool.headrace.limits]\nresult_byte_max = 1\n")
    refused = headrace(project, "run", "app:who")

    assert "over the limit of 1 (result_bytes_max)" in held_to.err
    assert Exit.USAGE == refused.code
    assert "there is no limit 'result_byte_max'; did you mean result_bytes_max?" in refused.err


@pytest.mark.slow
def test_functions_are_told_to_other_programs_as_json(project: Path) -> None:
    told = headrace(project, "function-spec")

    user = {"type": "record", "keys": {"type": "string"}, "values": ANYTHING}
    assert [
        {
            "identifier": "app.js:count",
            "functionType": "Mutation",
            "visibility": {"kind": "public"},
            "args": {"type": "object", "value": {}},
            "returns": {"type": "number"},
        },
        {
            "identifier": "app.js:who",
            "functionType": "Query",
            "visibility": {"kind": "public"},
            "args": {"type": "object", "value": {}},
            "returns": {"type": "union", "value": [user, {"type": "null"}]},
        },
    ] == told.json["functions"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments", [["push"], ["run", "app:who"], ["serve", "--data", "d", "--port", "0"]], ids=str
)
def test_an_application_that_cannot_be_loaded_is_a_push_that_is_refused(
    project: Path, arguments: list[str]
) -> None:
    (project / "app.py").write_text("def (")

    said = headrace(project, *arguments)

    assert Exit.REFUSED == said.code
    assert "app.py:1: invalid syntax" in said.err


@pytest.mark.slow
def test_logs_of_a_directory_that_nobody_has_open_are_nowhere(project: Path) -> None:
    headrace(project, "run", "app:who")

    said = headrace(project, "logs", "--follow")

    assert Exit.UNREACHABLE == said.code
    assert f"error: no server has {project / '.headrace'} open\n" == said.err


@pytest.mark.slow
def test_files_of_all_kinds_are_imported_and_shown(project: Path) -> None:
    (project / "a.jsonl").write_text('{"name": "ada", "age": 36}\n\n{"name": "bob", "age": 1.5}\n')
    (project / "b.json").write_text('[{"name": "cy", "age": 3}]')
    (project / "c.csv").write_text('name,age\n"d, e",4\n007,5e1\n')

    imported = [
        headrace(project, "import", "--table", "people", name)
        for name in ("a.jsonl", "b.json", "c.csv")
    ]
    documents = headrace(project, "data", "people", "--json", "--order", "desc", "--limit", "4")
    counted = headrace(project, "run", "app:count")
    sound = headrace(project, "verify")

    assert [0, 0, 0] == [each.code for each in imported]
    shown = [json.loads(line) for line in documents.out.splitlines()]
    assert [("007", 50), ("d, e", 4), ("cy", 3), ("bob", 1.5)] == [
        (each["name"], each["age"]) for each in shown
    ]
    assert "5\n" == counted.out
    assert 0 == sound.code


@pytest.mark.slow
def test_the_schema_that_documents_have_is_printed_and_can_be_pushed(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.headrace]\napp = "backend"\n')
    (tmp_path / "backend").mkdir()
    (tmp_path / "backend" / "people.py").write_text(
        "from headrace import query\n\n\n@query\nasync def none(ctx) -> None:\n    pass\n"
    )
    (tmp_path / "people.jsonl").write_text('{"name": "ada", "age": 36}\n{"name": "bob"}\n')
    imported = headrace(tmp_path, "import", "--table", "people", "people.jsonl")

    shape = headrace(tmp_path, "data", "people", "--shape")
    (tmp_path / "backend" / "schema.py").write_text(shape.out)
    pushed = headrace(tmp_path, "push")
    (tmp_path / "bad.jsonl").write_text('{"name": 3}\n')
    refused = headrace(tmp_path, "import", "--table", "people", "bad.jsonl")

    assert (0, 0, 0) == (imported.code, shape.code, pushed.code), pushed.err
    assert '"age": v.optional(v.number())' in shape.out
    assert refused.code != 0
    assert "does not fit its schema" in refused.err


@pytest.mark.slow
def test_a_query_is_explained_by_what_it_read(project: Path) -> None:
    (project / "app.py").write_text(
        APP.replace("Table(Person)", 'Table(Person).index("by_name", ["name", "age"])')
        + """

@query
async def adas(ctx: QueryCtx, oldest: float) -> int:
    people = ctx.db.query(Person)
    some = people.with_index("by_name", lambda r: r.eq("name", "ada").lte("age", oldest))
    found = await some.order("desc").filter(lambda q: q.neq(q.field("age"), 36)).take(2)
    await ctx.db.get(found[0]["_id"])
    return len(found)
"""
    )
    lines = [
        f'{{"name": "{name}", "age": {age}}}' for name in ("ada", "bob") for age in range(30, 45)
    ]
    (project / "people.jsonl").write_text("\n".join(lines))
    headrace(project, "import", "--table", "people", "people.jsonl")

    explained = headrace(project, "run", "app:adas", '{"oldest": 40}', "--explain")
    refused = headrace(project, "run", "app:count", "--explain")
    missing = headrace(project, "run", "app:nobody", "--explain")

    shown = explained.out.splitlines()
    assert "people\tby_name\tname = 'ada', age <= 40\tdesc\t1\t2\t2" == shown[1]
    assert shown[2].startswith("3 documents, ")
    assert "1 of them by id" in shown[2]
    why = "error: app:count is defined as mutation; only queries are explained\n"
    assert (Exit.USAGE, "", why) == (refused.code, refused.out, refused.err)
    assert (Exit.FAILED, "") == (missing.code, missing.out)


@pytest.mark.slow
def test_a_search_is_explained_by_the_documents_that_it_reads(project: Path) -> None:
    (project / "app.py").write_text(
        APP.replace("Table(Person)", 'Table(Person).search_index("by_name", search_field="name")')
        + """

@query
async def called(ctx: QueryCtx, name: str) -> int:
    people = ctx.db.query(Person).with_search_index("by_name", lambda s: s.search("name", name))
    return len(await people.filter(lambda q: q.gt(q.field("age"), 1)).take(2))
"""
    )
    lines = [f'{{"name": "{n}", "age": {age}}}' for n in ("ada", "bob") for age in range(6)]
    (project / "people.jsonl").write_text("\n".join(lines))
    headrace(project, "import", "--table", "people", "people.jsonl")

    explained = headrace(project, "run", "app:called", '{"name": "ada"}', "--explain")

    shown = explained.out.splitlines()
    assert 'people\tby_name\tsearch name for "ada"\tscore\t1\t6\t2' == shown[1].replace("'", '"')
    assert shown[2].startswith("6 documents, ")
    assert "by id" not in shown[2]


@pytest.mark.slow
def test_verbs_that_look_change_nothing(project: Path) -> None:
    app, indexed = project / "app.py", 'Table(Person).index("by_name", ["name"], unique=True)'
    app.write_text(
        APP.replace("Table(Person)", indexed)
        + """

@mutation
async def add(ctx: MutationCtx) -> None:
    await ctx.db.insert(Person, {"name": "ada", "age": 36})


@query
async def how_many(ctx: QueryCtx) -> int:
    return await ctx.db.count(Person)
"""
    )
    before = headrace(project, "replay", "1")
    headrace(project, "run", "app:add")
    ts = headrace(project, "log", "tail", "-n", "1", "--json").json["ts"]
    looks = (
        ["replay", ts],
        ["run", "app:how_many", "--at", ts],
        ["run", "app:how_many", "--explain"],
    )

    log = [headrace(project, "log", "tail").out]
    same = [headrace(project, *arguments) for arguments in (*looks, ["run", "app:how_many"])]
    log.append(headrace(project, "log", "tail").out)
    app.write_text(app.read_text().replace("36", "37"))
    recoded = [headrace(project, *arguments) for arguments in looks]
    log.append(headrace(project, "log", "tail").out)
    app.write_text(app.read_text().replace(indexed, "Table(Person)"))
    refused = [headrace(project, *arguments) for arguments in looks]
    log.append(headrace(project, "log", "tail").out)
    headrace(project, "run", "app:how_many")
    pushed = headrace(project, "log", "tail")

    assert (Exit.USAGE, True) == (before.code, "there is no data in" in before.err)
    assert [0] * 4 == [said.code for said in same]
    assert [log[0]] * 4 == log
    assert [Exit.FAILED, 0, 0] == [said.code for said in recoded]
    assert "the code is another one" in recoded[0].out
    assert {Exit.REFUSED} == {said.code for said in refused}
    assert all("would have dropped index people.by_name" in said.err for said in refused)
    assert all("`headrace push` first" in said.err for said in refused)
    assert log[0].count("_system:push") + 1 == pushed.out.count("_system:push")


def test_a_deployment_is_paused_and_resumed_whoever_has_it_open(project: Path) -> None:
    too_soon = headrace(project, "pause", "--data", ".")
    headrace(project, "push")
    paused = headrace(project, "pause")
    again = headrace(project, "pause")
    refused = headrace(project, "run", "app:count")
    resumed = headrace(project, "resume")
    done = headrace(project, "run", "app:count")

    assert Exit.USAGE == too_soon.code
    assert "nothing is deployed here yet" in too_soon.err
    assert [Exit.DONE, Exit.DONE] == [paused.code, again.code]
    assert "paused already" in again.err
    assert Exit.FAILED == refused.code
    assert "`headrace resume` lets functions be called again" in refused.err
    assert Exit.DONE == resumed.code == done.code


@pytest.mark.slow
def test_a_query_reads_the_past(project: Path) -> None:
    (project / "app.py").write_text(
        f"{APP}\n\n@query\nasync def how_many(ctx: QueryCtx) -> int:\n"
        "    return await ctx.db.count(Person)\n"
    )
    (project / "people.jsonl").write_text('{"name": "ada", "age": 36}')
    headrace(project, "import", "--table", "people", "people.jsonl")
    then = datetime.now(UTC)
    headrace(project, "import", "--table", "people", "people.jsonl")
    ts = json.loads(headrace(project, "log", "tail", "-n", "1", "--json").out)["ts"]

    asked = {
        at: headrace(project, "run", "app:how_many", "--at", at)
        for at in (str(then), f"{then.astimezone():%Y-%m-%dT%H:%M:%S.%f}", ts)
    }
    ahead = headrace(project, "run", "app:how_many", "--at", "2200-01-01T00:00Z")
    mutation = headrace(project, "run", "app:count", "--at", ts)
    explained = headrace(project, "run", "app:how_many", "--at", ts, "--explain")

    assert ["1\n", "1\n", "2\n"] == [found.out for found in asked.values()]
    assert (True, True) == (ahead.code != 0, "in the future" in ahead.err)
    assert (Exit.FAILED, True) == (mutation.code, "as Query, but it is defined as" in mutation.err)
    assert "leave out --at" in explained.err
    for nonsense in ("yesterday", "-1", "1" * 30, "2999-01-01"):
        assert "is no time" in headrace(project, "run", "app:how_many", f"--at={nonsense}").err


@pytest.mark.slow
def test_a_commit_is_listed_shown_and_run_again(project: Path) -> None:
    app = project / "app.py"
    app.write_text(
        f"{APP}\n\n@mutation\nasync def add(ctx: MutationCtx, age: float) -> None:\n"
        "    await ctx.db.insert(Person, {'name': 'ada', 'age': age})\n"
    )
    headrace(project, "run", "app:add", '{"age": 36}')

    listed = headrace(project, "log", "tail", "-n", "1", "--json")
    tail = headrace(project, "log", "tail")
    ts = listed.json["ts"]
    shown = headrace(project, "log", "show", ts)
    same = headrace(project, "replay", ts)
    app.write_text(app.read_text().replace("'age': age", "'age': age + 1"))
    other = headrace(project, "replay", ts)
    missing = headrace(project, "replay", "1")
    nonsense = [headrace(project, *verb, "-1") for verb in (("replay",), ("log", "show"))]

    assert ("app:add", {"insert people": 1}) == (listed.json["path"], listed.json["writes"])
    assert f"{ts}  app:add  insert people" in tail.out
    assert ({"age": 36}, 36) == (shown.json["args"], shown.json["writes"][0]["after"]["age"])
    assert (0, "the same 1 row as then, bit for bit") == (same.code, same.out.splitlines()[-1])
    assert Exit.FAILED == other.code
    assert "the code is another one" in other.out
    assert '"age": 37' in other.out
    assert (Exit.USAGE, "error: There is no commit 1") == (missing.code, missing.err[:27])
    for one in nonsense:
        assert (Exit.USAGE, True) == (one.code, "'-1' is no ts of a commit" in one.err)


@pytest.mark.slow
def test_jobs_wait_while_somebody_only_looks(project: Path) -> None:
    app = project / "app.py"
    app.write_text(
        f"{APP}\n\n@mutation\nasync def add(ctx: MutationCtx, after_ms: float = 0) -> None:\n"
        "    await ctx.db.insert(Person, {'name': 'ada', 'age': 36})\n"
        "    if after_ms:\n"
        "        await ctx.scheduler.run_after(after_ms, add)\n"
    )
    headrace(project, "run", "app:add", '{"after_ms": 1000}')
    ts = headrace(project, "log", "tail", "-n", "1", "--json").json["ts"]
    time.sleep(1.2)

    replayed = headrace(project, "replay", ts)
    headrace(project, "run", "app:count", "--explain")
    after = headrace(project, "log", "tail", "-n", "100")

    assert Exit.DONE == replayed.code
    assert 1 == after.out.count("  app:add  ")


PETS = """
from headrace import Schema, Table, v

schema = Schema({tables})
"""
OWNERS = 'owners=Table({"name": v.string()}).index("by_name", ["name"])'
ANIMALS = 'pets=Table({"owner": v.id("owners"), "age": v.number()})'


def household(folder: Path, *tables: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "app.py").write_text(PETS.format(tables=", ".join(tables)))
    (folder / "pyproject.toml").write_text('[tool.headrace]\napp = "app.py"\n')
    return folder


@pytest.mark.slow
def test_what_one_directory_shows_another_imports_with_ids_and_times(tmp_path: Path) -> None:
    here = household(tmp_path / "here", OWNERS, ANIMALS)
    there = household(tmp_path / "there", ANIMALS, OWNERS)
    (here / "new.jsonl").write_text("".join(f'{{"name": "n{n}"}}\n' for n in range(150)))
    headrace(here, "import", "--table", "owners", "new.jsonl")
    owners = headrace(here, "data", "owners", "--json").out
    (there / "owners.jsonl").write_text(owners)
    owner = json.loads(owners.splitlines()[7])["_id"]
    (here / "pet.jsonl").write_text(f'{{"owner": "{owner}", "age": 3}}\n')
    headrace(here, "import", "--table", "pets", "pet.jsonl")
    pets = headrace(here, "data", "pets", "--json").out
    (there / "pets.jsonl").write_text(pets)

    imported = [headrace(there, "import", "--table", t, f"{t}.jsonl") for t in ("owners", "pets")]
    again = headrace(there, "import", "--table", "owners", "owners.jsonl")

    assert [0, 0] == [each.code for each in imported], [each.err for each in imported]
    assert owners == headrace(there, "data", "owners", "--json").out
    assert pets == headrace(there, "data", "pets", "--json").out
    assert 0 == headrace(there, "verify").code
    assert 2 == again.code
    assert f"document 1: there is a document '{json.loads(owners.splitlines()[0])['_id']}'" in (
        again.err
    )


@pytest.mark.usefixtures("in_process")
def test_a_level_of_traces_that_there_is_not_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HEADRACE_TRACE", "loud")

    code = main(["version"])

    assert Exit.USAGE == code
    assert "debug, info, warning, error, critical, not 'loud'" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
def test_a_file_that_is_no_text_is_refused_by_its_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\xff\xfe\x00")

    with pytest.raises(UsageError, match=rf"{name} is no UTF-8 text"):
        list(read_documents(tmp_path / name))


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("a.jsonl", '{"n": NaN}', "a.jsonl:1: this is no JSON: NaN"),
        ("a.jsonl", '{"n": 1e999}', "a.jsonl:1: this is no JSON: 1e999 is beyond"),
        ("a.csv", "n\n1e999", "a.csv, row 2: this is no JSON: 1e999 is beyond"),
        ("a.json", "[" * 100_000, "a.json: this is no JSON that can be read: nested too deep"),
    ],
    ids=["nan", "infinite", "infinite-cell", "deep"],
)
def test_what_python_would_read_but_json_does_not_have_is_refused_with_its_place(
    tmp_path: Path, name: str, text: str, why: str
) -> None:
    (tmp_path / name).write_text(text)

    with pytest.raises(UsageError, match=re.escape(why)):
        list(read_documents(tmp_path / name))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"name": "ada", "age": 1, "_id": "x"}', "document 2: 'x' is no document id"),
        (
            '{"name": "ada", "age": 1, "_creationTime": 0}',
            "document 2: _creationTime is 0; it has to be milliseconds",
        ),
        ('{"name": "ada"}', "document 2: a document of 'people' does not fit"),
        ('{"name": "\\ud800", "age": 1}', "document 2: name: a str with a lone surrogate"),
    ],
    ids=["id", "creation time", "schema", "surrogate"],
)
def test_a_document_that_cannot_be_is_refused_with_its_place(
    project: Path, line: str, why: str
) -> None:
    (project / "a.jsonl").write_text('{"name": "ada", "age": 36}\n' + line)

    refused = headrace(project, "import", "--table", "people", "a.jsonl")
    tables = headrace(project, "data")

    assert 2 == refused.code
    assert why in refused.err
    assert "0 documents were imported before this" in refused.err
    assert "people\t0\t" in tables.out


@pytest.mark.slow
def test_an_input_of_the_shell_is_one_transaction(project: Path) -> None:
    insert = 'await db.insert("people", {"name": "ada", "age": 1})'

    failed = headrace(project, "shell", "-c", f"{insert}; 1 / 0")
    shown = headrace(project, "shell", "-c", "await run(api.app.count)")
    several = headrace(
        project,
        "shell",
        stdin=f'for _ in range(2):\n    {insert}\nprint(2)\nawait db.count("people")\n',
    )
    unknown = headrace(project, "data", "persons")

    assert 1 == failed.code
    assert "division by zero" in failed.err
    assert "0\n" == shown.out
    assert "[LOG] 2" in several.err
    assert "2\n" == several.out
    assert "There is no table 'persons'; there are people" in unknown.err


@pytest.mark.parametrize("word", ["exit", "quit()"])
def test_the_shell_is_left_by_the_words_that_leave_python(
    word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.input", lambda _: word)

    with AdminClient("http://127.0.0.1:1", "key") as nobody:
        assert Exit.DONE == converse(nobody, "session")


@pytest.mark.slow
def test_a_function_is_run_as_the_user_that_was_asked_for(project: Path) -> None:
    identity = '{"issuer": "example.com", "subject": "ada", "email": "a@example.com"}'

    said = headrace(project, "run", "app:who", "--identity", identity)

    assert ("ada", "a@example.com") == (said.json["subject"], said.json["email"])


@pytest.mark.slow
def test_check_finds_a_handler_with_a_bad_annotation(project: Path) -> None:
    good = headrace(project, "check")
    (project / "app.py").write_text(
        APP + "\n\n@query\ndef late(ctx: QueryCtx, at: set[str]) -> None: ...\n"
    )
    bad = headrace(project, "check")

    assert 0 == good.code
    assert "app:who\tquery\t" in good.out
    assert 1 == bad.code
    assert "app.py:24: late: argument `at`" in bad.err


def test_a_missing_module_is_shown_by_the_line_that_imports_it_and_nothing_of_ours(
    project: Path,
) -> None:
    (project / "app.py").write_text("import no_such_module\n")

    said = headrace(project, "check")

    assert (
        f"error: {project}/app.py:1: ModuleNotFoundError: No module named 'no_such_module'\n"
        f'  File "{project}/app.py", line 1, in <module>\n'
        "    import no_such_module\n"
    ) == said.err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (["data", "--url", "http://127.0.0.1:1", "--admin-key", "k"], 3, "no server answers"),
        (["data"], 2, "there is no data"),
        (["data", "--url", "http://[::1", "--admin-key", "k"], 3, "is no URL"),
        (["run", "app:who", "[1"], 2, "no JSON"),
        (["run", "app:who", "[" * 100_000], 2, "nested too deep"),
        (["run", "app:who", '{"n": NaN}'], 2, "no JSON: NaN"),
        (["serve", "--data", "d", "--port", "65536"], 2, "a port is 0 to 65535"),
        (["dev", "--port", "-1"], 2, "a port is 0 to 65535"),
        (["jobs", "list", "-n", "0"], 2, "a whole number from 1 on, not 0"),
        (["log", "tail", "-n", "-1"], 2, "a whole number from 0 on, not -1"),
        (["data", "--limit", "0"], 2, "a whole number from 1 on, not 0"),
        (["rate-limits", "list", "-n", "0"], 2, "a whole number from 1 on, not 0"),
        (["aggregate", "dead-letters", "-n", "-1"], 2, "a whole number from 1 on, not -1"),
        (["workpool", "failures", "-n", "0"], 2, "a whole number from 1 on, not 0"),
        (["workpool", "configure", "--max-parallelism", "-1"], 2, "from 0 on, not -1"),
        (["migrations", "run", "a:b", "--batch-size", "0"], 2, "from 1 on, not 0"),
        (["run", "app:nope"], 1, "app:nope"),
        (["init", "."], 2, "not empty"),
        (["import", "--table", "people", "x.xml"], 2, ".jsonl"),
        (["no-such-verb"], 2, "invalid choice"),
    ],
    ids=lambda one: " ".join(one)[:40] if isinstance(one, list) else "",
)
def test_the_exit_code_says_what_kind_of_refusal_it_is(
    project: Path, arguments: list[str], code: int, why: str
) -> None:
    said = headrace(project, *arguments)

    assert code == said.code
    assert why in said.err


def install_verbs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verbs: str, code: str) -> None:
    """A distribution that adds them, of a module `greeting`."""
    installed = tmp_path / "greeting-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text(f"[headrace.commands]\n{verbs}\n")
    (tmp_path / "greeting.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "greeting", raising=False)


@pytest.mark.usefixtures("in_process")
def test_verbs_of_other_distributions_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = "def main(arguments):\n    print(arguments)\n    return 7\n"
    install_verbs(tmp_path, monkeypatch, "greet = greeting:main", code)

    ended = main(["greet", "ada", "--loud"])

    assert 7 == ended
    assert "['ada', '--loud']\n" == capsys.readouterr().out


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import never_installed", "cannot be loaded: ModuleNotFoundError"),
        ("main = 5", "is 5; it has to be a function"),
        ("", "cannot be loaded: AttributeError"),
    ],
)
def test_a_verb_of_another_distribution_that_is_none_is_named_with_its_package(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    code: str,
    why: str,
) -> None:
    install_verbs(tmp_path, monkeypatch, "greet = greeting:main", code)

    ended = main(["greet"])

    said = capsys.readouterr().err
    assert 4 == ended
    assert f"error: the verb 'greet', 'greeting:main' of greeting, {why}" in said
    assert "Traceback" not in said


@pytest.mark.usefixtures("in_process")
def test_a_verb_that_headrace_has_itself_is_told_to_be_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install_verbs(tmp_path, monkeypatch, "run = greeting:main\ngreet = greeting:main", "")

    with pytest.raises(SystemExit):
        main(["--help"])

    said = " ".join(capsys.readouterr().out.split())
    listed = said.partition("More verbs")[2].partition("Left out")[0]
    assert ("greet" in listed, "run" in listed) == (True, False)
    assert "verbs of these names: run (greeting:main)." in said
