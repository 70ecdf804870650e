"""
From a folder, a file, a module or some functions to an `Application`.

    load("backend")                    a folder: a package, all its modules
    load("chat.py")                    a single file
    load("project.backend")            a package or module by its dotted name
    load([send, list_page, schema])    what a notebook or a test has made

Whatever is loaded is loaded afresh: reloading makes another `Application` out
of new module objects, and the one before serves on, untouched, also if the new
one cannot be loaded.  `make_live` then lets everybody else import the new ones.

Loading runs code of the application and may take a while: call it in a thread.
"""

from __future__ import annotations

import importlib.util
import linecache
import marshal
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, Final, TypeAlias, TypeVar

from engine.app.component import App, Component, Mount
from engine.app.configuration import mounting
from engine.app.crons import Crons
from engine.app.environment import Variables, given_to, read_environment, using
from engine.app.registered import RegisteredFunction
from engine.app.registry import Application, Placed, functions_of, merged, only_one, verify
from engine.app.schema import Schema
from engine.app.triggers import Trigger
from engine.errors import DeclarationError, VariableMissing
from engine.functions import global_writes
from engine.functions.load_limit import LoadTookTooLong, limited
from engine.functions.logs import capture_logging
from engine.functions.modules import Modules
from engine.functions.refusals import allow_reading, install_audit_hook
from engine.functions.sources import DIGEST_BYTES, Source, Sources, read_file, read_folder
from engine.model.limits import LOAD_S_MAX

D = TypeVar("D", bound=Placed)

Declared: TypeAlias = RegisteredFunction | Schema | App | Crons | Trigger[Any]
DECLARED: Final = (RegisteredFunction, Schema, App, Crons, Trigger)
Loadable: TypeAlias = str | Path | ModuleType | Sequence[Declared]


def load(source: Loadable, *, name: str | None = None) -> Application:
    """
    Execute an application's modules and collect what they declare.

    Args:
        source: a folder, a `.py` file, a module or its dotted name, or functions (with a
            schema, crons and so on, if there are any).
        name: what a folder or file is imported as, instead of its own name.

    Returns:
        The application. Its functions know their paths; its modules can be imported by
        others if none of these names could be before, otherwise from `make_live` on.

    Raises:
        DeclarationError: it cannot be loaded; says where and why. Nothing has changed.
    """
    install_audit_hook()
    capture_logging()
    match source:
        case str() | Path():
            return _load_sources(_find(source, name))
        case ModuleType():
            return _load_module(source)
        case _:
            return _load_declared(source)


def make_live(application: Application) -> None:
    """Let `import` find the modules of this version from here on, and errors show its lines."""
    for name, module in application.modules.items():
        sys.modules[name] = module
        if (file := getattr(module, "__file__", None)) is not None:  # generated ones have none
            linecache.checkcache(file)
        parent, _, child = name.rpartition(".")
        if parent in sys.modules:
            setattr(sys.modules[parent], child, module)


def withdraw(application: Application) -> None:
    """Undo what loading did to `import`: its modules, and the folder that was added to the path."""
    for name, module in application.modules.items():
        if sys.modules.get(name) is module:
            del sys.modules[name]
    if application.root is not None:
        _leave_path(application.root)


def _leave_path(root: Path) -> None:
    """Take the folder of an application off the path, if it is there for nobody else."""
    parent = str(root.parent)
    users = _appended.get(parent, set())
    users.discard(str(root))
    if parent in _appended and not users:
        del _appended[parent]
        with suppress(ValueError):  # somebody has taken it out already
            sys.path.remove(parent)


# Where it is.

_appended: Final[dict[str, set[str]]] = {}
"""What of `sys.path` is there because of applications, and of which ones."""


def _find(source: str | Path, name: str | None) -> Sources:
    path = Path(source).expanduser()
    if path.is_dir() or path.is_file():
        path = path.resolve()
        return _read(path, _importable(path, name or path.stem))
    if isinstance(source, str) and all(step.isidentifier() for step in source.split(".")):
        return _find_dotted(source)
    raise DeclarationError(f"{source}: there is no such folder, file or module")


def _read(path: Path, name: str) -> Sources:
    if path.is_dir():
        return read_folder(path, name)
    if path.suffix != ".py":
        raise DeclarationError(f"{path}: an application is a folder or a .py file")
    return read_file(path, name)


def _find_dotted(name: str) -> Sources:
    try:
        found, why = _place_of(name), "no module of that name can be imported"
    except ImportError as error:
        found, why = None, f"importing it says: {error}"
    if found is None:
        raise DeclarationError(
            f"{name}: there is no such folder or file here ({Path.cwd()}), and {why}"
        )
    return _read(found, name)


def _importable(path: Path, name: str) -> str:
    """
    `name`, once it is sure that importing it means `path`.

    Raises:
        DeclarationError: it cannot be imported, or means something else.
    """
    if not name.isidentifier():
        raise DeclarationError(
            f"{path}: {name!r} cannot be imported; rename it to letters, digits and underscores"
        )
    found = _place_of(name)
    if found is not None and found != path:
        raise DeclarationError(
            f"{path} would be imported as {name!r}, but that is {found} already; rename it"
        )
    if name in sys.builtin_module_names:
        raise DeclarationError(f"{path}: {name!r} is a module of Python's own; rename it")
    parent = str(path.parent)
    if found is None and name == path.stem and parent not in sys.path:
        sys.path.append(parent)
        _appended[parent] = set()
    if parent in _appended:
        _appended[parent].add(str(path))
    return name


def _place_of(name: str) -> Path | None:
    """The folder or file that is imported as `name`, as far as it has one."""
    try:
        spec = importlib.util.find_spec(name)
    except ValueError:  # a module without a spec, such as __main__
        spec = None
    if spec is None:
        return None
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations))).resolve()
    return Path(spec.origin).resolve() if spec.has_location and spec.origin else None


# A folder, a file, or a package.


def _load_sources(sources: Sources) -> Application:
    variables = read_environment(sources.root if sources.folders else sources.root.parent)
    if sources.folders:
        allow_reading(str(sources.root))
    is_new = not any(sources.owns(name) for name in sys.modules)
    try:
        with _explained(sources), limited(LOAD_S_MAX):
            application = _Loading(sources, variables).application()
    except BaseException:
        if is_new:
            _leave_path(sources.root)
        raise
    if is_new:
        make_live(application)
    else:
        _adopt(application)
    return application


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where a component is mounted, and in which packages it is."""

    path: str = ""
    packages: tuple[str, ...] = ()


class _Loading:
    """The application, or one mount of a component, while it is being loaded."""

    def __init__(self, sources: Sources, variables: Variables, place: _Place | None = None) -> None:
        self._sources = sources
        self._variables = variables
        self._place = place or _Place()
        self._modules = Modules(sources)

    def application(self) -> Application:
        with self._modules.shown(), using(self._variables), _explained(self._sources):
            for source in self._sources.published():
                self._modules.load(source.name)
            application = _with_mounts(self._collected(), self._place, self._variables)
            if application.schema:
                for table in application.schema.tables.values():
                    assert table.validator, "read while the names in it can be looked up"
            self._modules.generated.bind(application)
            verify(self._seen_from_above(application))
        return application

    def _seen_from_above(self, application: Application) -> Application:
        """A component's own references begin with where it is mounted."""
        path = self._place.path
        if not path:
            return application
        return replace(application, mounts={**application.mounts, path: application})

    def _collected(self) -> Application:
        path = self._place.path
        modules = [
            (source, vars(self._modules.table[source.name])) for source in self._sources.published()
        ]
        made = self._modules.made
        for source, names in modules:
            _check_replaced(source, names, made[source.name])
            _check_schema(source, names)
        functions = merged(
            functions_of(source.path, names, made[source.name], component=path)
            for source, names in modules
        )
        roots = [names for source, names in modules if self._is_root(source.name)]
        return Application(
            functions=MappingProxyType(functions),
            schema=_only(Schema, roots),
            app=self._component(roots) if path else _only(App, roots),
            path=path,
            crons=_only(Crons, roots),
            triggers=tuple(dict.fromkeys(_triggers(modules))),
            digest=self._sources.digest,
            root=self._sources.root,
            environment=self._variables,
            modules=MappingProxyType(dict(self._modules.table)),
            warnings=tuple(
                warning
                for source, _ in modules
                for warning in global_writes.find(source.text, _shown(source.file))
            ),
        )

    def _component(self, roots: Iterable[Mapping[Any, object]]) -> Component | None:
        """The component that these modules are; others that they import are not meant."""
        found = [
            one
            for names in roots
            for one in names.values()
            if isinstance(one, Component) and one.package == self._sources.name
        ]
        return only_one(Component, found)

    def _is_root(self, name: str) -> bool:
        return name.rpartition(".")[0] == self._sources.name or name == self._sources.name


def _check_schema(source: Source, names: Mapping[str, object]) -> None:
    """
    Raises:
        DeclarationError: the module `schema` has something else under that name.
    """
    given = names.get("schema")
    is_missing = "schema" not in names or isinstance(given, Schema | ModuleType)
    if source.name.rpartition(".")[2] == "schema" and not is_missing:
        raise DeclarationError(f"{_shown(source.file)}: schema is {given!r}; write Schema(...)")


def _check_replaced(
    source: Source, names: Mapping[str, object], made: Sequence[RegisteredFunction]
) -> None:
    """
    Raises:
        DeclarationError: of two functions of one name only the second can be reached.
    """
    for first in made:
        name = first.handler.__qualname__
        second = names.get(name)
        if first is second or first.options.name or not isinstance(second, RegisteredFunction):
            continue
        if second.handler.__qualname__ == name and second in made:
            raise DeclarationError(
                f"{source.path}:{name} is two functions, {first.where} and {second.where}; "
                "rename one of them"
            )


def _only(kind: type[D], modules: Iterable[Mapping[Any, object]]) -> D | None:
    """The one object of a kind in some namespaces."""
    return only_one(
        kind, [one for names in modules for one in names.values() if isinstance(one, kind)]
    )


def _with_mounts(application: Application, place: _Place, variables: Variables) -> Application:
    """The application with its components, those inside of components included."""
    mounts: dict[str, Application] = {}
    for mount in application.app.mounts.values() if application.app else ():
        below = _load_mount(mount, place, variables)
        mounts[mount.path] = below
        mounts.update(below.mounts)
    digest = blake2b(application.digest.encode(), digest_size=DIGEST_BYTES)
    for path, part in sorted(mounts.items()):
        digest.update(f"{path} {part.digest}\n".encode())
    warnings = dict.fromkeys(warning for part in mounts.values() for warning in part.warnings)
    return replace(
        application,
        mounts=MappingProxyType(mounts),
        digest=digest.hexdigest(),
        warnings=(*application.warnings, *warnings),
    )


def _load_mount(mount: Mount, place: _Place, variables: Variables) -> Application:
    package = mount.component.package
    if not package:
        raise DeclarationError(
            f"{mount.where}: {mount.component!r} belongs to no package, so it has no functions; "
            "create it in a module of its package, or say package="
        )
    if package in place.packages:
        raise DeclarationError(
            f"{mount.where}: {mount.component!r} mounts itself, by way of {place.path!r}"
        )
    if place.path:
        mount.path = f"{place.path}/{mount.path}"
    inside = _Place(path=mount.path, packages=(*place.packages, package))
    with mounting(package, mount.config):
        return _Loading(_find_dotted(package), _given(mount, variables), inside).application()


def _given(mount: Mount, variables: Variables) -> Variables:
    """
    What a mount sees of the variables of whoever mounts it.

    Raises:
        DeclarationError: one that is handed on is not set.
    """
    if isinstance(mount.env, Mapping):
        return given_to(mount.env)
    try:
        return given_to({name: variables[name] for name in mount.env})
    except VariableMissing as error:
        raise DeclarationError(f"{mount.where}: env of the mount {mount.path!r}: {error}") from None


def _triggers(modules: Iterable[tuple[Source, Mapping[str, object]]]) -> Iterator[Trigger[Any]]:
    for source, names in modules:
        for one in names.values():
            if isinstance(one, Trigger) and one.module == source.path:
                yield one


def _shown(file: Path) -> str:
    """A file as messages name it: from here, if it is below."""
    try:
        return str(file.relative_to(Path.cwd()))
    except ValueError:
        return str(file)


@contextmanager
def _explained(sources: Sources) -> Iterator[None]:
    """Whatever goes wrong in the block becomes an error that says in which line."""
    try:
        yield
    except DeclarationError:
        raise
    except SyntaxError as error:
        raise DeclarationError(f"{error.filename}:{error.lineno}: {error.msg}") from error
    except LoadTookTooLong as error:
        place = _place_in(error, sources) or str(sources.root)
        message = f"{place}: this was being imported when loading had taken {LOAD_S_MAX:g} s"
        raise DeclarationError(
            f"{message} (LOAD_S_MAX); do it when a function is called"
        ) from error
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and _is_main_thread():
            raise  # somebody's, at the keyboard
        place = _place_in(error, sources) or str(sources.root)
        raise DeclarationError(f"{place}: {type(error).__name__}: {error}") from error


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _place_in(error: BaseException, sources: Sources) -> str | None:
    """The innermost line of the application that the error went through."""
    files = {str(source.file) for source in sources.modules.values()}
    places = [
        f"{frame.f_code.co_filename}:{line}"
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_code.co_filename in files
    ]
    return places[-1] if places else None


def _adopt(application: Application) -> None:
    """Functions that others imported before, in the ordinary way, stand for the same paths."""
    for name, module in application.modules.items():
        before = sys.modules.get(name)
        if before is None or before is module:
            continue
        for attribute, function in vars(module).items():
            twin = getattr(before, attribute, None)
            if (
                isinstance(function, RegisteredFunction)
                and isinstance(twin, RegisteredFunction)
                and function.path is not None
                and twin.path is None
            ):
                twin.bind(function.path.rpartition(":")[0], attribute, function.component)


# A module that is imported already, or functions without one.


def _load_module(module: ModuleType) -> Application:
    place = _place_of(module.__name__)
    if module.__name__ == "__main__" or place is None:
        made = [one for one in vars(module).values() if isinstance(one, DECLARED)]
        return _load_declared(
            [
                one
                for one in made
                if not isinstance(one, RegisteredFunction) or one.module == module.__name__
            ]
        )
    return _load_sources(_read(place, module.__name__))


def _load_declared(declared: Sequence[Any]) -> Application:
    functions: dict[str, RegisteredFunction] = {}
    for one in declared:
        if not isinstance(one, DECLARED):
            raise DeclarationError(
                f"{one!r} cannot be loaded; give functions that are decorated, a Schema, an App "
                "or Crons, or the folder of an application"
            )
        if isinstance(one, RegisteredFunction):
            one.bind(_module_path(one), one.handler.__name__)
            functions = merged([functions, {str(one.path): one}])
    given = [dict(enumerate(declared))]
    triggers = tuple(one for one in declared if isinstance(one, Trigger))
    application = Application(
        functions=MappingProxyType(functions),
        schema=_only(Schema, given),
        app=_only(App, given),
        crons=_only(Crons, given),
        triggers=triggers,
        environment=read_environment(None),
        digest=_digest_of(functions, _only(Schema, given), triggers),
    )
    application = _with_mounts(application, _Place(), application.environment)
    verify(application)
    return application


def _module_path(function: RegisteredFunction) -> str:
    module = function.handler.__module__
    return "main" if module == "__main__" else module.replace(".", "/")


def _digest_of(
    functions: Mapping[str, RegisteredFunction],
    schema: Schema | None,
    triggers: Sequence[Trigger[Any]],
) -> str:
    digest = blake2b(digest_size=DIGEST_BYTES)
    for path, function in sorted(functions.items()):
        digest.update(path.encode())
        digest.update(marshal.dumps(function.handler.__code__))
    for table in schema.tables.values() if schema else ():
        for check in table.checks:
            digest.update(marshal.dumps(getattr(check.holds, "__code__", check.name)))
    for one in triggers:
        digest.update(f"{one.table_name} {one.where}".encode())
        digest.update(marshal.dumps(getattr(one.handler, "__code__", one.path)))
    return digest.hexdigest()
