"""Any history of an aggregate on a real engine, against sorted lists."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from engine.model.values import normalize
from engine.rehearsal.harness import open_place
from tests.components.aggregate.counted import APPLICATION, Numbers
from tests.components.aggregate.model import BOUNDS, IDS, KEYS, SUMMANDS, Model

SIZES = st.sampled_from([None, 4, 4, 6])
NAMESPACES = st.sampled_from(["", None, False, 0])
"""Whatever is no text: `""` is none at all here, and `None` is a namespace like any other."""


def which(namespace: Any) -> dict[str, Any]:
    return {} if namespace == "" else {"namespace": namespace}


class History(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.open = open_place(APPLICATION)
        self.numbers = Numbers(self.open.__enter__())
        self.models: dict[str, Model] = {}

    def teardown(self) -> None:
        self.numbers.t.finish_all_scheduled_functions()
        for namespace in ("", None, False, 0):
            self.numbers.verify(**which(namespace))
        self.open.__exit__(None, None, None)

    def model(self, namespace: Any) -> Model:
        return self.models.setdefault(repr(namespace), Model())

    @initialize(size=SIZES, lazy=st.booleans(), count=st.integers(5, 40))
    def begin(self, size: int | None, lazy: bool, count: int) -> None:
        """With items enough for nodes below nodes, if these are small."""
        for namespace in ("", None):
            self.clear(namespace, size, lazy)
            self.insert_batch(namespace, [(key, key) for key in range(count)])

    @rule(namespace=NAMESPACES, key=KEYS.map(normalize), item_id=IDS, summand=SUMMANDS)
    def insert(self, namespace: Any, key: Any, item_id: str, summand: Any) -> None:
        item = {"key": key, "id": item_id, "sum_value": summand, **which(namespace)}
        error = self.numbers.survive("insert", **item)

        assert error == ("KeyExists" if self.model(namespace).has(key, item_id) else "")
        if not error:
            self.model(namespace).put(key, item_id, summand)

    @rule(namespace=NAMESPACES, key=KEYS.map(normalize), item_id=IDS)
    def delete(self, namespace: Any, key: Any, item_id: str) -> None:
        error = self.numbers.survive("delete", key=key, id=item_id, **which(namespace))

        assert error == ("" if self.model(namespace).has(key, item_id) else "KeyMissing")
        if not error:
            self.model(namespace).take(key, item_id)

    @rule(
        namespace=NAMESPACES,
        first=st.integers(0, 99),
        step=st.integers(0, 2),
        count=st.integers(1, 20),
    )
    def delete_some_that_are_there(self, namespace: Any, first: int, step: int, count: int) -> None:
        for n in range(count):
            items = self.model(namespace).within()
            if items:
                item = items[(first + step * n) % len(items)]
                self.delete(namespace, item["key"], item["id"])
        self.numbers.verify(**which(namespace))

    @rule(
        here=NAMESPACES,
        there=NAMESPACES,
        old=KEYS.map(normalize),
        new=KEYS.map(normalize),
        item_id=IDS,
        summand=SUMMANDS,
    )
    def replace(
        self, here: Any, there: Any, old: Any, new: Any, item_id: str, summand: Any
    ) -> None:
        error = self.numbers.survive(
            "replace",
            {"key": old, "id": item_id, **which(here)},
            {"key": new, "sumValue": summand, **which(there)},
        )

        if not self.model(here).has(old, item_id):
            assert error == "KeyMissing"
            return
        kept = self.model(here).within()
        self.model(here).take(old, item_id)
        if self.model(there).has(new, item_id):
            assert error == "KeyExists"
            (again,) = [one for one in kept if one not in self.model(here).within()]
            self.model(here).put(again["key"], again["id"], again["sumValue"])
            return
        assert error == ""
        self.model(there).put(new, item_id, summand)

    @rule(
        here=NAMESPACES,
        there=NAMESPACES,
        keys=st.lists(st.integers(50, 59), min_size=2, max_size=2, unique=True),
        item_id=IDS,
    )
    def replace_by_one_that_is_there(
        self, here: Any, there: Any, keys: list[int], item_id: str
    ) -> None:
        for namespace, key in zip((here, there), keys, strict=True):
            self.insert_if_does_not_exist(namespace, key, item_id, 1, 1)
        self.replace(here, there, *keys, item_id, 2)

    @rule(
        namespace=NAMESPACES,
        key=KEYS.map(normalize),
        item_id=IDS,
        summand=SUMMANDS,
        times=st.integers(1, 2),
    )
    def insert_if_does_not_exist(
        self, namespace: Any, key: Any, item_id: str, summand: Any, times: int
    ) -> None:
        for _ in range(times):
            self.numbers.tell(
                "insert_if_does_not_exist",
                key=key,
                id=item_id,
                sum_value=summand,
                **which(namespace),
            )
        self.model(namespace).put(key, item_id, summand)

    @rule(namespace=NAMESPACES, key=KEYS.map(normalize), item_id=IDS, times=st.integers(1, 2))
    def delete_if_exists(self, namespace: Any, key: Any, item_id: str, times: int) -> None:
        for _ in range(times):
            self.numbers.tell("delete_if_exists", key=key, id=item_id, **which(namespace))
        if self.model(namespace).has(key, item_id):
            self.model(namespace).take(key, item_id)

    @rule(
        namespace=NAMESPACES,
        entries=st.lists(
            st.tuples(KEYS.map(normalize), SUMMANDS),
            max_size=30,
            unique_by=lambda one: repr(one[0]),
        ),
    )
    def insert_batch(self, namespace: Any, entries: list[Any]) -> None:
        items = [
            {"key": key, "id": f"batch {n}", "sumValue": summand, **which(namespace)}
            for n, (key, summand) in enumerate(entries)
        ]
        model = self.model(namespace)
        is_new = not any(model.has(one["key"], one["id"]) for one in items)
        error = self.numbers.survive("insert_batch", items)

        assert error == ("" if is_new else "KeyExists")
        for one in items if is_new else ():
            model.put(one["key"], one["id"], one["sumValue"])
        self.numbers.verify(**which(namespace))

    @rule(namespace=NAMESPACES, size=SIZES, lazy=st.booleans())
    def clear(self, namespace: Any, size: int | None, lazy: bool) -> None:
        self.numbers.tell("clear", max_node_size=size, root_lazy=lazy, **which(namespace))
        self.model(namespace).items.clear()

    @rule(size=st.sampled_from([None, 4]))
    def clear_all(self, size: int | None) -> None:
        self.numbers.tell("clear_all", max_node_size=size)
        for model in self.models.values():
            model.items.clear()

    @rule(namespace=NAMESPACES)
    def make_root_lazy(self, namespace: Any) -> None:
        self.numbers.tell("make_root_lazy", **which(namespace))

    @rule(namespace=NAMESPACES, bounds=st.lists(BOUNDS.map(normalize), min_size=1, max_size=5))
    def look(self, namespace: Any, bounds: list[Any]) -> None:
        model, numbers = self.model(namespace), self.numbers
        queries = [{"bounds": one, **which(namespace)} for one in bounds]
        counts = [model.count(one) for one in bounds]

        assert counts == numbers.ask("count_batch", queries)
        assert [model.sum(one) for one in bounds] == numbers.ask("sum_batch", queries)
        for one, count in zip(bounds, counts, strict=True):
            within = model.within(one)
            where = {"bounds": one, **which(namespace)}
            assert repr(within) == repr(numbers.items(**where))
            assert repr(within[::-1]) == repr(numbers.items(order="desc", **where))
            assert repr(within[:1]) == repr([*filter(None, [numbers.ask("min", **where)])])
            assert repr(within[-1:]) == repr([*filter(None, [numbers.ask("max", **where)])])
            places = range(-count, count)
            found = numbers.ask("at_batch", [{"offset": at, **where} for at in places])
            assert repr([within[at] for at in places]) == repr(found)
            any_one = numbers.ask("random", **where)
            assert repr(any_one) in ([repr(item) for item in within] or ["None"])

    @rule(
        namespace=NAMESPACES,
        ends=st.tuples(st.integers(0, 99), st.integers(0, 99)),
        inclusive=st.tuples(st.booleans(), st.booleans()),
        with_ids=st.booleans(),
    )
    def look_from_one_to_another(
        self,
        namespace: Any,
        ends: tuple[int, int],
        inclusive: tuple[bool, bool],
        with_ids: bool,
    ) -> None:
        items = self.model(namespace).within()
        if not items:
            return
        lower, upper = (
            {
                "key": items[end % len(items)]["key"],
                "inclusive": is_within,
                **({"id": items[end % len(items)]["id"]} if with_ids else {}),
            }
            for end, is_within in zip(ends, inclusive, strict=True)
        )
        self.look(namespace, [{"lower": lower, "upper": upper}])
        for order in ("asc", "desc"):
            self.rank(namespace, lower["key"], lower.get("id"), order, {})

    @rule(
        namespace=NAMESPACES,
        key=KEYS.map(normalize),
        item_id=st.none() | IDS,
        order=st.sampled_from(["asc", "desc"]),
        bounds=BOUNDS.map(normalize).filter(lambda one: not {"eq", "prefix"} & one.keys()),
    )
    def rank(self, namespace: Any, key: Any, item_id: str | None, order: str, bounds: Any) -> None:
        found = self.numbers.ask(
            "index_of", key, id=item_id, order=order, bounds=bounds, **which(namespace)
        )

        assert self.model(namespace).index_of(key, item_id, order, bounds) == found

    @invariant()
    def every_count_is_right(self) -> None:
        for namespace in ("", None, False, 0):
            assert self.model(namespace).count() == self.numbers.ask("count", **which(namespace))


History.TestCase.settings = settings(max_examples=20, stateful_step_count=30, deadline=None)
TestHistory = History.TestCase
