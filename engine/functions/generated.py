"""
The package `_generated` of an application, as its modules import it.

What `headrace codegen` has written there is for type checkers, and is never
read: it may not have been written yet, or be of another day, and the
application has to load for it to be written again.
"""

from __future__ import annotations

from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from types import ModuleType

from engine.app.generated import Generated, generated
from engine.app.references import api, internal
from engine.app.registry import Application
from engine.app.validators import Validator
from engine.codegen.files import PYTHON_FOLDER
from engine.codegen.python import DataModel


class GeneratedModules:
    """
    Args:
        package: what Python imports the application as.
    """

    def __init__(self, package: str) -> None:
        root = f"{package}.{PYTHON_FOLDER}"
        model = f"{root}.data_model"
        self._modules = {root: _module(root), f"{root}.api": _module(f"{root}.api")}
        self._modules[model] = _module(model)
        vars(self._modules[f"{root}.api"]).update(api=api, internal=internal)
        vars(self._modules[model])["__getattr__"] = self._name
        self._names: dict[str, type[Generated]] = {}
        self._application: Application | None = None
        self._model: DataModel | None = None

    def find(self, name: str) -> ModuleType | None:
        """The module that is imported as `name`, if it is one of these."""
        return self._modules.get(name)

    def bind(self, application: Application) -> None:
        """Say what the names stand for, before signatures are read."""
        self._application = application

    def _name(self, name: str) -> type[Generated]:
        if name.startswith("_"):
            raise AttributeError(name)
        return self._names.setdefault(name, generated(name, lambda: self._validator(name)))

    def _validator(self, name: str) -> Validator | None:
        if self._application is None:
            return None
        self._model = self._model or DataModel.of(self._application)
        return self._model.validators.get(name)


def _module(name: str) -> ModuleType:
    return module_from_spec(ModuleSpec(name, None, is_package=name.endswith(PYTHON_FOLDER)))
