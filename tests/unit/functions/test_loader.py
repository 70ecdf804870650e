"""From a folder, a file, a module or some functions to an application."""

from __future__ import annotations

import importlib
import itertools
import random
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import trio

from engine.app.decorators import mutation, query
from engine.app.registry import Application
from engine.app.schema import Schema, Table
from engine.app.validators import v
from engine.errors import DeclarationError
from engine.functions.load_limit import LoadTookTooLong, limited
from engine.functions.loader import Loadable, load, make_live, withdraw
from engine.functions.results import failure_of

Write = Callable[..., Path]
Load = Callable[[Loadable], Application]

HEADER = "from engine.app.decorators import action, internal_mutation, mutation, query\n"
FUTURE = "from __future__ import annotations\n"
SEND = """
@mutation
async def send(ctx, body: str) -> None:
    ...
"""
NAMED_SEND = """
@mutation(name="send")
async def post(ctx, body: str) -> None:
    ...
"""

_numbers = itertools.count()


@pytest.fixture
def name() -> str:
    """Of a folder: no two tests load one of the same name."""
    return f"backend{next(_numbers)}"


@pytest.fixture
def write(tmp_path: Path, name: str) -> Write:
    """Writes the files of an application and returns its folder."""

    def write(**files: str) -> Path:
        folder = tmp_path / name
        for path, text in files.items():
            file = folder / f"{path.replace('__slash__', '/')}.py"
            file.parent.mkdir(parents=True, exist_ok=True)
            future, _, body = textwrap.dedent(text).partition(FUTURE)
            file.write_text(
                (FUTURE + HEADER + body if body else HEADER + future).replace("BACKEND", name)
            )
        return folder

    return write


@pytest.fixture
def loaded() -> Iterator[Load]:
    """`load`, undone after the test."""
    applications = []

    def keep(source: Loadable) -> Application:
        applications.append(load(source))
        return applications[-1]

    yield keep
    for application in applications:
        withdraw(application)


def paths(application: Application) -> list[str]:
    return sorted(application.functions)


# What is published.


def test_a_folder_publishes_what_its_modules_make(write: Write, loaded: Load) -> None:
    application = loaded(
        write(
            __init__="",
            messages=SEND,
            dir__slash__inner='@query(name="list")\ndef list_them(ctx) -> None: ...',
            dir__slash__package__slash____init__="@query\ndef deep(ctx) -> None: ...",
        )
    )

    assert ["dir/inner:list", "dir/package:deep", "messages:send"] == paths(application)
    assert "messages:send" == application.functions["messages:send"].path


def test_importing_a_function_publishes_nothing(write: Write, loaded: Load) -> None:
    application = loaded(
        write(
            messages=SEND,
            relative="from .messages import send",
            absolute="import BACKEND.messages\nfrom BACKEND.messages import send as post",
            star="from .messages import *",
        )
    )

    assert ["messages:send"] == paths(application)


def test_a_function_belongs_to_the_module_that_had_it_made(write: Write, loaded: Load) -> None:
    application = loaded(
        write(
            _factory="""
            def make():
                @query
                def made(ctx) -> None: ...
                return made
            unpublished = make()
            """,
            rooms="from ._factory import make\nfirst = make()\ndefault = make()",
        )
    )

    assert ["rooms:default", "rooms:first"] == paths(application)
    assert application.find("rooms") is application.functions["rooms:default"]


def test_what_a_library_makes_for_a_module_is_placed_in_that(
    write: Write, loaded: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lib").mkdir()
    library = f"library{next(_numbers)}"
    (tmp_path / "lib" / f"{library}.py").write_text(
        HEADER + "def make():\n    @query\n    def theirs(ctx) -> None: ...\n    return theirs\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))

    folder = write(rooms=f"import {library}\n\nfirst = {library}.make()\n\n{SEND}")
    application = loaded(folder)

    lines = (folder / "rooms.py").read_text().splitlines()
    line = next(n for n, text in enumerate(lines, start=1) if text.startswith("first = "))
    assert f"{folder / 'rooms.py'}:{line}: make.<locals>.theirs" == (
        application.functions["rooms:first"].where
    )
    assert application.functions["rooms:send"].where.endswith(": send")


def test_what_a_library_makes_while_it_is_imported_is_not_published(
    write: Write, loaded: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lib").mkdir()
    library = f"library{next(_numbers)}"
    (tmp_path / "lib" / f"{library}.py").write_text(
        HEADER + '@query(name="named")\ndef theirs(ctx) -> None: ...\n'
    )
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))

    application = loaded(write(rooms=f"import {library}"))

    assert [] == paths(application)


@pytest.mark.parametrize(
    "module", ["_hidden", "test_messages", "conftest", "_generated/api", "dir/_hidden", ".x/y"]
)
def test_some_modules_are_not_executed(module: str, write: Write, loaded: Load) -> None:
    folder = write(messages=SEND)
    file = folder / f"{module}.py"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("raise Exception('executed')")

    assert ["messages:send"] == paths(loaded(folder))


def test_hidden_modules_can_be_imported(write: Write, loaded: Load) -> None:
    application = loaded(
        write(
            _limits="import time\nMOST = 3",
            messages="""
            from ._limits import MOST, time
            from . import _limits
            @query
            def most(ctx) -> int:
                from BACKEND._late import LATE
                return LATE
            """,
            _late="LATE = 5",
        )
    )

    assert 5 == application.functions["messages:most"].handler(None)


def test_schema_app_and_crons_are_found_by_their_type(write: Write, loaded: Load) -> None:
    application = loaded(
        write(
            anything="""
            from engine.app.schema import Schema, Table
            from engine.app.component import App
            from engine.app.crons import Crons
            from engine.app.validators import v
            from .messages import send
            it = Schema(rooms=Table({"name": v.string()}))
            app = App()
            crons = Crons()
            crons.interval("often", send, minutes=5, args={"body": "x"})
            """,
            messages=SEND + "\nfrom . import anything\n",
        )
    )

    assert application.schema is not None
    assert ["rooms"] == list(application.schema.tables)
    assert application.app is not None
    assert application.crons is not None
    assert ["often"] == [job.name for job in application.crons.jobs]


def test_two_schemas_are_refused_with_both_places(write: Write) -> None:
    schema = "from engine.app.schema import Schema\nschema = Schema()"
    folder = write(one=schema, other=f"\n{schema}")

    with pytest.raises(DeclarationError, match="2 objects of Schema") as refused:
        load(folder)

    places = f"{folder}/one.py:3 and {folder}/other.py:4"
    assert f"2 objects of Schema, at {places}; an application has one" == str(refused.value)


CONTEXTS = ["QueryCtx", "MutationCtx", "ActionCtx", "BlockingActionCtx", "TriggerCtx"]
HANDLERS = {
    "@query\nasync def": ("QueryCtx", "a query"),
    "@query\ndef": ("QueryCtx", "a query"),
    "@mutation\nasync def": ("MutationCtx", "a mutation"),
    "@internal_mutation\nasync def": ("MutationCtx", "a mutation"),
    "@action\nasync def": ("ActionCtx", "an action"),
    "@action\ndef": ("BlockingActionCtx", "an action that is a plain `def`"),
}


@pytest.mark.parametrize("quoted", [True, False])
@pytest.mark.parametrize("annotated", CONTEXTS)
@pytest.mark.parametrize("handler", HANDLERS)
def test_a_context_of_another_kind_of_function_is_refused_by_line(
    write: Write, handler: str, annotated: str, quoted: bool
) -> None:
    meant, what = HANDLERS[handler]
    text = (
        "from engine.app.contexts import ActionCtx, MutationCtx, QueryCtx, TriggerCtx\n"
        "from engine.app.blocking import BlockingActionCtx\n"
        f"{handler} f(ctx: {annotated}):\n    ...\n"
    )
    folder = write(messages=f"{FUTURE}{text}" if quoted else text)

    if annotated == meant:
        assert ["messages:f"] == list(load(folder).functions)
        return
    with pytest.raises(DeclarationError) as refused:
        load(folder)

    line = 5 if quoted else 4
    assert str(refused.value).startswith(f"{folder}/messages.py:{line}: f: `ctx: {annotated}` is ")
    assert f"this is {what}: write `ctx: {meant}`, or make it a" in str(refused.value)


def test_what_else_a_context_is_called_is_the_type_checkers_to_judge(
    write: Write, loaded: Load
) -> None:
    application = loaded(
        write(
            messages="""
            from __future__ import annotations
            from typing import TYPE_CHECKING, Any, Protocol
            from engine.app.contexts import MutationCtx, QueryCtx
            if TYPE_CHECKING:
                from engine.app.contexts import ActionCtx

            class Reads(Protocol):
                db: Any

            @query
            async def a(ctx: QueryCtx | MutationCtx): ...
            @query
            async def b(ctx: Reads): ...
            @query
            async def c(ctx: ActionCtx): ...
            @query
            async def d(ctx: Any): ...
            """
        )
    )

    assert ["messages:a", "messages:b", "messages:c", "messages:d"] == list(application.functions)


def test_postponed_annotations_find_the_classes_of_their_own_version(
    write: Write, loaded: Load
) -> None:
    application = loaded(
        write(
            schema="""
            from __future__ import annotations
            from dataclasses import dataclass
            from engine.app.schema import Schema, Table
            from engine.app.types import Document
            class Room(Document):
                name: Name
            Name = str
            @dataclass
            class Point:
                x: Number
            Number = float
            schema = Schema(rooms=Table(Room))
            """,
            rooms="""
            from __future__ import annotations
            from .schema import Point
            @query
            def far(ctx, point: Point) -> float:
                return point.x
            """,
        )
    )

    signature = application.functions["rooms:far"].signature
    assert 2.0 == signature.load({"point": {"x": 2}}, lambda _: None)["point"].x


# Single files, modules, functions.


def test_errors_show_the_lines_of_the_version_that_is_live(
    tmp_path: Path, name: str, loaded: Load
) -> None:
    file = tmp_path / f"{name}.py"
    messages = []
    for line in ('raise ValueError("the first")', 'raise KeyError("the second one")'):
        file.write_text(f"{HEADER}@query\nasync def fails(ctx) -> None:\n    {line}\n")
        application = loaded(file)
        make_live(application)
        with pytest.raises((ValueError, KeyError)) as raised:
            trio.run(application.functions[f"{name}:fails"].handler, None)
        messages.append(failure_of(raised.value).message)

    assert 'raise ValueError("the first")' in messages[0]
    assert 'raise KeyError("the second one")' in messages[1]


def test_a_single_file_is_an_application(tmp_path: Path, name: str, loaded: Load) -> None:
    (tmp_path / f"{name}.py").write_text(HEADER + SEND)

    assert [f"{name}:send"] == paths(loaded(tmp_path / f"{name}.py"))


def test_a_folder_can_be_imported_by_another_name(write: Write, name: str) -> None:
    folder = write(messages="from BACKEND_2.other import X\n" + SEND, other="X = 1")

    application = load(folder, name=f"{name}_2")

    assert {f"{name}_2", f"{name}_2.messages", f"{name}_2.other"} == set(application.modules)
    assert ["messages:send"] == paths(application)
    withdraw(application)


def test_one_application_after_the_other_can_have_one_name(tmp_path: Path, name: str) -> None:
    for number, folder in enumerate(("first", "second")):
        (tmp_path / folder / name).mkdir(parents=True)
        (tmp_path / folder / name / "messages.py").write_text(f"{HEADER}{SEND}NUMBER = {number}\n")

    first = load(tmp_path / "first" / name)
    with pytest.raises(DeclarationError, match="already; rename it"):
        load(tmp_path / "second" / name)
    withdraw(first)
    second = load(tmp_path / "second" / name)
    withdraw(second)

    assert 0 == first.modules[f"{name}.messages"].NUMBER
    assert 1 == second.modules[f"{name}.messages"].NUMBER


def test_a_dotted_name_is_found_as_import_finds_it(
    write: Write, name: str, loaded: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(inner__slash__messages=SEND, single=SEND, __init__="")
    monkeypatch.syspath_prepend(str(folder.parent))

    assert ["messages:send"] == paths(loaded(f"{name}.inner"))
    assert ["single:send"] == paths(loaded(f"{name}.single"))


def test_a_module_is_loaded_afresh(
    write: Write, name: str, loaded: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(write(__init__="", messages=SEND).parent))
    module = importlib.import_module(f"{name}.messages")

    application = loaded(sys.modules[name])

    assert ["messages:send"] == paths(application)
    assert module.send is not application.functions["messages:send"]
    assert "messages:send" == module.send.path


@query
def by_hand(ctx: Any) -> None: ...


@mutation(name="given")
def also_by_hand(ctx: Any) -> None: ...


def test_functions_are_an_application() -> None:
    schema = Schema(rooms=Table({"name": v.string()}))

    application = load([by_hand, also_by_hand, schema])

    module = __name__.replace(".", "/")
    assert [f"{module}:by_hand", f"{module}:given"] == paths(application)
    assert application.schema is schema
    assert application.digest != load([by_hand]).digest


def test_functions_of_a_notebook_are_in_main(monkeypatch: pytest.MonkeyPatch) -> None:
    main = ModuleType("__main__")
    exec(HEADER + SEND + "\nfrom engine.app.decorators import query as q\n", vars(main))

    assert ["main:send"] == paths(load([main.send]))
    assert ["main:send"] == paths(load(main))


def test_anything_else_in_a_list_is_refused() -> None:
    with pytest.raises(DeclarationError, match="3 cannot be loaded; give functions"):
        load([3])  # type: ignore[list-item]


# What is refused.


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"messages": SEND, "messages/inner": SEND}, r"messages\.py and .*messages would both"),
        ({"my-messages": SEND}, r"my-messages\.py: 'my-messages' can be no part"),
        ({"my dir/messages": SEND}, r"my dir: 'my dir' can be no part"),
        ({"größe": SEND}, r"größe\.py: 'größe' can be no part"),
        ({"messages": SEND + NAMED_SEND},
         r"messages:send is two functions, .*messages\.py:\d+.* and .*messages\.py:\d+"),
        ({"messages": SEND + SEND},
         r"messages:send is two functions, .*messages\.py:3.* and .*messages\.py:7"),
        ({"messages": "@query\ndef größe(ctx) -> None: ..."}, r"messages\.py:\d+.*größe"),
        ({"messages": "\n\ndef x(:\n"}, r"messages\.py:4: invalid syntax"),
        ({"messages": "\n\nx = 1\0\n"}, r"messages\.py:4: source code .* null bytes"),
        ({"messages": "\n\n1 / 0\n"}, r"messages\.py:4: ZeroDivisionError: division by zero"),
        ({"messages": "import sys\nsys.exit(3)"}, r"messages\.py:3: SystemExit: 3"),
        ({"messages": "from .nothing import x"}, r"messages\.py:2: ModuleNotFoundError: .*nothing"),
        ({"messages": "from .other import x", "other": "\nimport nothing_of_the_sort"},
         r"other\.py:3: ModuleNotFoundError"),
        ({"schema": "schema = 5"}, r"schema\.py: schema is 5; write Schema"),
        ({"messages": "@query\ndef f(ctx, x: set) -> None: ..."}, r"messages\.py:\d+"),
    ],
)  # fmt: skip
def test_what_cannot_be_loaded_is_refused_with_its_place(
    files: dict[str, str], message: str, write: Write
) -> None:
    folder = write(**{path.replace("/", "__slash__"): text for path, text in files.items()})

    with pytest.raises(DeclarationError, match=message):
        load(folder)


def test_twice_the_same_name_is_refused_with_both_places(write: Write) -> None:
    folder = write(messages='@query(name="a")\ndef one(ctx) -> None: ...\n'
                            '@query(name="a")\ndef other(ctx) -> None: ...')  # fmt: skip

    with pytest.raises(DeclarationError, match=r"messages:a is two functions, .*one.* and .*other"):
        load(folder)


def test_a_name_that_is_importable_from_elsewhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "json").mkdir()

    with pytest.raises(DeclarationError, match=r"imported as 'json', but that is .* already"):
        load(tmp_path / "json")


def test_a_builtin_module_is_no_name_for_an_application(tmp_path: Path) -> None:
    (tmp_path / "time").mkdir()

    with pytest.raises(DeclarationError, match="'time' is a module of Python's own"):
        load(tmp_path / "time")


@pytest.mark.parametrize("source", ["nowhere/at/all", "no_such_module", "no.such.module"])
def test_what_is_not_there_is_said_not_to_be(source: str) -> None:
    with pytest.raises(DeclarationError, match="there is no such"):
        load(source)


def test_a_folder_that_cannot_be_imported_is_refused(tmp_path: Path) -> None:
    (tmp_path / "my-app").mkdir()

    with pytest.raises(DeclarationError, match="'my-app' cannot be imported; rename it"):
        load(tmp_path / "my-app")


# Imports.


def test_the_parent_is_appended_to_the_path_and_never_before_others(
    write: Write, name: str, loaded: Load
) -> None:
    folder = write(messages=SEND)
    before = list(sys.path)

    application = loaded(folder)

    assert [*before, str(folder.parent)] == sys.path
    assert (
        application.functions["messages:send"] is importlib.import_module(f"{name}.messages").send
    )
    withdraw(application)
    assert before == sys.path
    assert f"{name}.messages" not in sys.modules


def test_shims_are_for_the_application_only(write: Write, loaded: Load, tmp_path: Path) -> None:
    application = loaded(
        write(
            _inner="import random",
            messages="""
            import random, time, os.path as p, os
            from json import decoder
            from . import _inner
            import concurrent.futures
            """,
        )
    )

    (module,) = (m for n, m in application.modules.items() if n.endswith(".messages"))
    assert module.random is not random
    assert module.random is module._inner.random
    assert module.time is not time
    assert module.p is importlib.import_module("os.path")
    assert module.decoder is importlib.import_module("json.decoder")
    assert sys.modules["random"] is random
    assert "posix" == importlib.import_module("os").open.__module__


def test_modules_that_import_each_other_in_a_circle_see_what_is_there(
    write: Write, loaded: Load
) -> None:
    application = loaded(
        write(
            a="first = 1\nfrom . import b\nlast = b.first",
            b="from .a import first\nimport BACKEND.a as whole\nlast = whole.first",
        )
    )

    assert {1} == {m.last for m in application.modules.values() if hasattr(m, "last")}


def test_modules_know_their_files(write: Write, name: str, loaded: Load) -> None:
    folder = write(__init__="", messages=SEND)

    module = loaded(folder).modules[f"{name}.messages"]

    assert str(folder / "messages.py") == module.__file__
    assert name == module.__package__
    assert module.__spec__ is not None
    assert module.__spec__.origin == module.__file__


# Reloading.


def test_a_reload_makes_new_modules_and_leaves_the_old_ones_alone(
    write: Write, name: str, loaded: Load
) -> None:
    folder = write(messages="VERSION = 1\n" + SEND, _kept="COUNT = []")
    old = loaded(folder)
    live = importlib.import_module(f"{name}.messages")

    write(messages="VERSION = 2\n" + SEND)
    new = loaded(folder)

    assert 1 == live.VERSION == importlib.import_module(f"{name}.messages").VERSION
    assert old.functions["messages:send"] is live.send is not new.functions["messages:send"]
    assert old.digest != new.digest
    make_live(new)
    assert 2 == importlib.import_module(f"{name}.messages").VERSION
    assert 2 == importlib.import_module(name).messages.VERSION


def test_a_reload_that_fails_changes_nothing(write: Write, name: str, loaded: Load) -> None:
    folder = write(a="VERSION = 1", messages="VERSION = 1\n" + SEND)
    loaded(folder)
    before = {n: m for n, m in sys.modules.items() if n.startswith(name)}

    write(a="VERSION = 2", messages="VERSION = 2\n1 / 0")
    with pytest.raises(DeclarationError, match=r"messages\.py:3: ZeroDivisionError"):
        load(folder)

    assert before == {n: m for n, m in sys.modules.items() if n.startswith(name)}
    assert 1 == importlib.import_module(f"{name}.a").VERSION


def test_a_first_load_that_fails_leaves_nothing_behind(write: Write, name: str) -> None:
    with pytest.raises(DeclarationError):
        load(write(a="VERSION = 1", b="1 / 0"))

    assert [] == [n for n in sys.modules if n.startswith(name)]


def test_an_old_version_imports_its_own_modules_also_later(
    write: Write, name: str, loaded: Load
) -> None:
    folder = write(
        messages="""
        @query
        def late(ctx) -> int:
            from ._late import VERSION
            return VERSION
        """,
        _late="VERSION = 1",
    )
    old = loaded(folder)
    write(_late="VERSION = 2")
    new = loaded(folder)
    make_live(new)

    assert 1 == old.functions["messages:late"].handler(None)
    assert 2 == new.functions["messages:late"].handler(None)


def test_functions_that_were_imported_before_stand_for_their_path(
    write: Write, name: str, loaded: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(__init__="", messages=SEND)
    monkeypatch.syspath_prepend(str(folder.parent))
    before = importlib.import_module(f"{name}.messages").send

    loaded(folder)

    assert "messages:send" == before.path


def test_the_digest_follows_the_sources(write: Write, loaded: Load) -> None:
    folder = write(messages=SEND, _hidden="")
    first = loaded(folder).digest
    (folder / "test_messages.py").write_text("")
    (folder / "notes.txt").write_text("")

    assert first == loaded(folder).digest

    write(_hidden="X = 1")
    assert first != loaded(folder).digest


def test_loading_works_in_a_thread(write: Write, loaded: Load) -> None:
    folder = write(messages=SEND)
    found: list[Application] = []
    thread = threading.Thread(target=lambda: found.append(loaded(folder)))

    thread.start()
    thread.join()

    assert ["messages:send"] == paths(found[0])


# The environment.


def test_the_environment_is_there_while_modules_are_executed(write: Write, loaded: Load) -> None:
    folder = write(a="from engine.app.environment import env\nSECRET = env['OF_THIS_TEST']")
    (folder / ".env.local").write_text("OF_THIS_TEST=known\n")

    application = loaded(folder)

    assert "known" == next(m.SECRET for m in application.modules.values() if hasattr(m, "SECRET"))
    assert "known" == application.environment["OF_THIS_TEST"]


# Components.


@pytest.fixture
def component(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The dotted name of an installed component, which mounts another."""
    package = f"parts{next(_numbers)}"
    files = {
        "limits/__init__": f"from {package}.limits.component import component",
        "limits/component": f"""
            from engine.app.component import Component
            from engine.app.crons import Crons
            from engine.app.validators import v
            from {package}.jobs import component as jobs
            from .schema import schema
            component = Component("limits")
            batch = component.use(jobs, name="batch")
            crons = Crons()
            @mutation(name="check")
            def check_them(ctx) -> int:
                return len(SEEN)
            SEEN = []
            crons.interval("clean", check_them, minutes=5)
            crons.interval("work", batch.work.run, minutes=5)
            """,
        "limits/schema": """
            from engine.app.schema import Schema, Table
            from engine.app.validators import v
            schema = Schema(limits=Table({"name": v.string()}))
            """,
        "limits/client": "class Client: ...",
        "jobs/__init__": "from .component import component",
        "jobs/component": """
            from engine.app.component import Component
            component = Component("jobs")
            """,
        "jobs/work": "@mutation\ndef run(ctx) -> None: ...",
    }
    for path, text in files.items():
        file = tmp_path / "installed" / package / f"{path}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(HEADER + textwrap.dedent(text))
    monkeypatch.syspath_prepend(str(tmp_path / "installed"))
    return f"{package}.limits"


APP = """
from engine.app.component import App
from COMPONENT import component
from COMPONENT.client import Client
app = App()
limits = app.use(component)
others = app.use(component, name="others")
"""


def test_components_are_loaded_for_each_mount(write: Write, component: str, loaded: Load) -> None:
    application = loaded(write(app=APP.replace("COMPONENT", component), messages=SEND))

    assert ["messages:send"] == paths(application)
    assert ["limits", "limits/batch", "others", "others/batch"] == sorted(application.mounts)
    limits, others = application.mounts["limits"], application.mounts["others"]
    assert ["component:check"] == paths(limits)
    assert limits.schema is not None
    assert ["limits"] == list(limits.schema.tables)
    assert limits.schema is not others.schema
    one, other = limits.functions["component:check"], others.functions["component:check"]
    assert ("limits", "others") == (one.component, other.component)
    assert one.handler.__globals__["SEEN"] is not other.handler.__globals__["SEEN"]
    assert ["work:run"] == paths(application.mounts["others/batch"])
    work = application.find("work:run", "others/batch")
    assert work is not None
    assert "others/batch" == work.component


def test_what_clients_of_a_component_import_is_the_ordinary_module(
    write: Write, component: str, loaded: Load
) -> None:
    application = loaded(write(app=APP.replace("COMPONENT", component)))

    client = importlib.import_module(f"{component}.client")
    assert any(getattr(m, "Client", None) is client.Client for m in application.modules.values())
    assert client not in application.mounts["limits"].modules.values()


def test_components_see_no_environment(write: Write, component: str, loaded: Load) -> None:
    application = loaded(write(app=APP.replace("COMPONENT", component)))

    assert {} == dict(application.mounts["limits"].environment)


def test_the_digest_follows_components(
    write: Write, component: str, loaded: Load, tmp_path: Path
) -> None:
    folder = write(app=APP.replace("COMPONENT", component))
    first = loaded(folder).digest

    (source,) = (tmp_path / "installed").glob("*/jobs/work.py")
    source.write_text(source.read_text() + "\nX = 1\n")

    assert first != loaded(folder).digest


# Warnings.


def warnings_of(text: str, write: Write, loaded: Load) -> list[str]:
    return [one.partition(": ")[2] for one in loaded(write(messages=text)).warnings]


@pytest.mark.parametrize(
    "line",
    [
        "global count; count = 1",
        "global count; count += 1",
        "cache['a'] = 1",
        "cache['a']['b'] += 1",
        "cache.update(a=1)",
        "del cache['a']",
        "seen.append(1)",
        "settings.debug = True",
        "Settings.debug = True",
        "[seen.append(x) for x in 'ab']",
        "found, cache['a'] = 1, 2",
    ],
)
def test_a_handler_that_changes_a_global_is_warned_of(
    line: str, write: Write, loaded: Load
) -> None:
    text = f"""
count = 0
cache: dict = {{"a": {{}}}}
seen = list()
settings = object()
class Settings: ...
@mutation
async def send(ctx) -> None:
    {line}
"""
    (warning,) = warnings_of(text, write, loaded)

    assert warning.startswith("send changes the module's global `")


def test_a_global_that_a_handlers_helper_changes_is_warned_of_once(
    write: Write, loaded: Load
) -> None:
    text = """
count = 0
def note() -> None:
    global count
    count += 1
def note_twice() -> None:
    note(); note()
@query
async def first(ctx) -> None:
    note_twice()
@query
async def second(ctx) -> None:
    note()
"""
    (warning,) = warnings_of(text, write, loaded)

    assert warning.startswith("note, which ")
    assert "calls, changes the module's global `count`" in warning


@pytest.mark.parametrize(
    "line",
    [
        "count = 1",
        "cache = {}; cache['a'] = 1",
        "ctx.db.x = 1",
        "local = []; local.append(1)",
        "print(cache['a'], count)",
        "await limiter.update(ctx)",
        "limiter.add(ctx, 1)",
        "[cache for cache in 'ab']",
    ],
)
def test_a_handler_that_only_reads_is_not_warned_of(line: str, write: Write, loaded: Load) -> None:
    text = f"""
count = 0
cache = {{"a": 1}}
limiter = object()
cache["b"] = 2
def helper():
    cache["c"] = 3
@mutation
async def send(ctx) -> None:
    {line}
@action
async def act(ctx) -> None:
    cache["d"] = 4
"""
    assert [] == warnings_of(text, write, loaded)


# Modules that do not come to an end.


@pytest.mark.parametrize(
    "text",
    [
        "while True: pass",
        "while True:\n  try:\n    while True: pass\n  finally: x = 1",
        "import time\nwhile True: time.sleep(0.01)",
        "try:\n  while True: pass\nexcept BaseException: pass\nwhile True: pass",
    ],
)
@pytest.mark.parametrize("is_in_thread", [False, True])
def test_a_module_that_spins_is_refused_with_its_line(
    text: str, is_in_thread: bool, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.functions.loader.LOAD_S_MAX", 0.2)
    folder = write(messages=text)
    refused: list[str] = []

    def attempt() -> None:
        with pytest.raises(DeclarationError) as error:
            load(folder)
        refused.append(str(error.value))

    if is_in_thread:
        thread = threading.Thread(target=attempt)
        thread.start()
        thread.join()
    else:
        attempt()

    assert f"{folder / 'messages.py'}:" in refused[0]
    assert "0.2 s" in refused[0]
    assert [] == [one for one in threading.enumerate() if one.name == "load limit"]


def test_what_is_interrupted_too_late_disturbs_nobody() -> None:
    for length in range(200):
        with suppress(LoadTookTooLong), limited(0.0005):
            sum(range(length * 100))
        sum(range(10_000))


@pytest.mark.parametrize("raised", ["KeyboardInterrupt", "SystemExit", "GeneratorExit"])
def test_whatever_a_module_raises_in_a_thread_is_a_refusal(raised: str, write: Write) -> None:
    folder = write(messages=f"raise {raised}")
    refused: list[BaseException] = []

    def attempt() -> None:
        try:
            load(folder)
        except BaseException as error:
            refused.append(error)

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()

    assert isinstance(refused[0], DeclarationError)
    assert f"messages.py:2: {raised}" in str(refused[0])


def test_an_interrupt_in_the_main_thread_is_somebodys_at_the_keyboard(write: Write) -> None:
    with pytest.raises(KeyboardInterrupt):
        load(write(messages="raise KeyboardInterrupt"))
