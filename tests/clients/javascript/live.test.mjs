// ConvexClient and BaseConvexClient: subscriptions, mutations, actions, tokens.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { makeFunctionReference } from "convex/server";
import { ConvexError } from "convex/values";

import { api, bodies, Clients, freshName, sleep, until } from "./harness.mjs";
import { forged, Server, token } from "./server.mjs";

const server = new Server("live");
before(() => server.start());
after(() => server.stop());

const LIST = makeFunctionReference("conformance:list");

test("a subscription shows each state once and in order", async (t) => {
  const clients = new Clients(t, server);
  const channel = freshName();
  const seen = [];
  clients.live().onUpdate(api.list, { channel }, (value) => seen.push(bodies(value)));
  await until(() => seen.length === 1);

  for (const body of ["a", "b", "c"]) {
    const before = seen.length;
    await clients.http().mutation(api.send, { channel, body });
    await until(() => seen.length > before);
  }

  assert.deepEqual(seen, [[], ["a"], ["a", "b"], ["a", "b", "c"]]);
});

test("a write elsewhere says nothing", async (t) => {
  const clients = new Clients(t, server);
  let calls = 0;
  clients.live().onUpdate(api.list, { channel: freshName() }, () => calls++);
  await until(() => calls === 1);

  await clients.http().mutation(api.send, { channel: freshName(), body: "x" });
  await sleep(100);

  assert.equal(calls, 1);
  assert.equal(clients.heard("Transition").length, 1);
});

test("a mutation's promise resolves when its own subscriptions show it", async (t) => {
  const client = new Clients(t, server).live();
  const channel = freshName();
  const shown = client.onUpdate(api.list, { channel }, () => {});
  await until(() => shown.getCurrentValue() !== undefined);

  for (let i = 1; i <= 20; i++) {
    await client.mutation(api.send, { channel, body: `m${i}` });
    assert.equal(shown.getCurrentValue().length, i);
  }
});

test("mutations are carried out in the order they were called", async (t) => {
  const clients = new Clients(t, server);
  const client = clients.live();
  const channel = freshName();

  const outcomes = await Promise.allSettled(
    Array.from({ length: 40 }, (_, n) =>
      n % 5 === 3
        ? client.mutation(api.fail_after_write, { channel })
        : client.mutation(api.send, { channel, body: "x", n }),
    ),
  );

  const failed = outcomes.flatMap(({ status }, n) => (status === "rejected" ? [n] : []));
  assert.deepEqual(failed, [3, 8, 13, 18, 23, 28, 33, 38]);
  const stored = await clients.http().query(api.list, { channel });
  assert.deepEqual(
    stored.map((message) => message.n),
    outcomes.flatMap(({ status }, n) => (status === "fulfilled" ? [n] : [])),
  );
});

test("two queries of one client are never of two states", async (t) => {
  const clients = new Clients(t, server);
  const channel = freshName();
  const elsewhere = await clients.http().query(api.count, {});
  let torn = null;
  let looked = 0;
  const base = clients.base(() => {
    const list = base.localQueryResult("conformance:list", { channel });
    const count = base.localQueryResult("conformance:count", {});
    if (list === undefined || count === undefined) return;
    looked++;
    if (count - list.length !== elsewhere) torn ??= [count, list.length];
  });
  base.subscribe("conformance:list", { channel });
  base.subscribe("conformance:count", {});
  await until(() => looked > 0);

  const writers = Array.from({ length: 3 }, () => clients.live());
  await Promise.all(
    writers.map(async (writer) => {
      for (let i = 0; i < 15; i++) await writer.mutation(api.send, { channel, body: "x" });
    }),
  );
  await until(() => base.localQueryResult("conformance:list", { channel }).length === 45);

  assert.equal(torn, null);
  assert.ok(looked > 3, `only ${looked} states were seen`);
});

test("a large result comes in parts and is shown whole", async (t) => {
  const clients = new Clients(t, server);
  const client = clients.live();
  const value = Array.from({ length: 60 }, (_, n) => `größer 🙂 ${n} `.repeat(6_000));
  const states = [];
  client.onUpdate(api.echo, { value }, (state) => states.push(state));
  await until(() => states.length > 0);
  const channel = freshName();
  await client.mutation(api.send, { channel, body: "after it" });

  assert.deepEqual(states, [value]);
  const parts = clients.heard("TransitionChunk");
  assert.ok(parts.length > 5, `${parts.length} parts`);
  assert.deepEqual(
    parts.map(({ partNumber }) => partNumber),
    parts.map((_, n) => n),
  );
  assert.equal(client.connectionState().connectionCount, 1);
});

test("an optimistic update is replaced without a flicker", async (t) => {
  const clients = new Clients(t, server);
  const channel = freshName();
  const states = [];
  const base = clients.base(() => {
    const value = base.localQueryResult("conformance:list", { channel });
    const state = value?.map(({ body, _id }) => (_id === "?" ? `?${body}` : body)).join();
    if (value !== undefined && state !== states.at(-1)) states.push(state);
  });
  base.subscribe("conformance:list", { channel });
  await until(() => states.length > 0);

  const optimisticUpdate = (store, args) => {
    const now = store.getQuery(LIST, { channel });
    store.setQuery(LIST, { channel }, [...now, { ...args, _id: "?", _creationTime: 0 }]);
  };
  const send = (body) =>
    base.mutation("conformance:send", { channel, body }, { optimisticUpdate });
  await send("a");
  await Promise.all([send("b"), send("c")]);

  assert.deepEqual(states.slice(0, 3), ["", "?a", "a"]);
  assert.equal(states.at(-1), "a,b,c");
  for (const state of states.slice(3)) {
    assert.match(state, /^a(,\??b(,\??c)?)?$/, `states were ${JSON.stringify(states)}`);
  }
});

test("an optimistic update of a mutation that fails is taken back", async (t) => {
  const clients = new Clients(t, server);
  const channel = freshName();
  const base = clients.base(() => {});
  base.subscribe("conformance:list", { channel });
  const shown = () => base.localQueryResult("conformance:list", { channel });
  await until(() => shown() !== undefined);

  const failing = base.mutation(
    "conformance:fail_after_write",
    { channel },
    { optimisticUpdate: (store) => store.setQuery(LIST, { channel }, [{ body: "doomed" }]) },
  );
  assert.deepEqual(bodies(shown()), ["doomed"]);

  await assert.rejects(failing);
  assert.deepEqual(shown(), []);
});

test("actions answer beside mutations, and show what they wrote", async (t) => {
  const client = new Clients(t, server).live();
  const channel = freshName();
  const shown = client.onUpdate(api.list, { channel }, () => {});

  const [sum] = await Promise.all([
    client.action(api.add, { a: 2, b: 3.5 }),
    client.mutation(api.send, { channel, body: "by mutation" }),
    client.action(api.send_via_action, { channel, body: "by action" }),
  ]);

  assert.equal(sum, 5.5);
  await until(() => shown.getCurrentValue()?.length === 2);
});

test("a query that fails disturbs nothing else", async (t) => {
  const clients = new Clients(t, server);
  const client = clients.live();
  const errors = [];
  const onError = (error) => errors.push(error);
  client.onUpdate(api.fails, { kind: "convex_null" }, () => {}, onError);
  client.onUpdate(api.list, { channel: 5 }, () => {}, onError);
  client.onUpdate(makeFunctionReference("conformance:nope"), {}, () => {}, onError);
  await until(() => errors.length === 3);

  assert.ok(errors[0] instanceof ConvexError);
  assert.equal(errors[0].data, null);
  assert.match(errors[1].message, /ArgumentValidationError/);
  assert.match(errors[2].message, /Could not find public function/);
  assert.equal(await client.query(api.echo, { value: 1 }), 1);
  assert.equal(clients.wires.length, 1);
});

test("pages keep their ends while documents come in between", async (t) => {
  const clients = new Clients(t, server);
  const channel = freshName();
  const http = clients.http();
  for (const n of [1, 2, 3, 4, 5]) await http.mutation(api.send, { channel, body: "x", n });
  const base = clients.base(() => {});
  const first = { channel, paginationOpts: { numItems: 2, cursor: null, id: 1 } };
  base.subscribe("conformance:paged", first);
  const page = (args) => base.localQueryResult("conformance:paged", args);
  const ns = (args) => page(args)?.page.map((message) => message.n);
  await until(() => page(first) !== undefined);
  const cursor = page(first).continueCursor;
  const second = { channel, paginationOpts: { numItems: 2, cursor, id: 1 } };
  base.subscribe("conformance:paged", second);
  await until(() => page(second) !== undefined);

  await http.mutation(api.send, { channel, body: "x", n: 1.5 });
  await http.mutation(api.send, { channel, body: "x", n: 3.5 });
  await until(() => ns(first).length === 3 && ns(second).length === 3);

  assert.deepEqual([ns(first), ns(second)], [
    [1, 1.5, 2],
    [3, 3.5, 4],
  ]);
});

test("a result of many megabytes arrives", async (t) => {
  const client = new Clients(t, server).live();
  const value = Array.from({ length: 50 }, (_, i) => String(i % 10).repeat(200_000));

  assert.deepEqual(await client.query(api.echo, { value }), value);
});

// Tokens.

const watched = (client) => {
  const seen = [];
  client.onUpdate(api.whoami, {}, (me) => seen.push(me?.subject ?? null));
  return seen;
};

test("users come and go on one connection", async (t) => {
  const clients = new Clients(t, server);
  const client = clients.live();
  const seen = watched(client);
  await until(() => seen.length === 1);

  client.setAuth(async () => token("ada"));
  await until(() => seen.at(-1) === "ada");
  client.setAuth(async () => token("bob"));
  await until(() => seen.at(-1) === "bob");
  client.client.clearAuth();
  await until(() => seen.at(-1) === null);

  assert.deepEqual(seen, [null, "ada", "bob", null]);
  assert.equal(clients.wires.length, 1);
});

test("nothing is asked as nobody when a token is expected", async (t) => {
  const client = new Clients(t, server).live({ expectAuth: true });
  const seen = watched(client);

  client.setAuth(async () => token("ada"));
  await until(() => seen.length > 0);

  assert.deepEqual(seen, ["ada"]);
});

test("a token that is never accepted leaves the client as nobody", async (t) => {
  const client = new Clients(t, server).live();
  const seen = watched(client);
  const changes = [];

  client.setAuth(
    async () => forged("mallory"),
    (isAuthenticated) => changes.push(isAuthenticated),
  );
  await until(() => changes.length > 0, "the client to give up", 20_000);
  await until(() => seen.at(-1) === null);

  assert.deepEqual(changes, [false]);
  assert.ok(!seen.includes("mallory"));
});

test("a token that runs out in use is renewed and the mutation done once", async (t) => {
  const clients = new Clients(t, server);
  const client = clients.live();
  const seen = watched(client);
  const channel = freshName();
  const now = Math.floor(Date.now() / 1000);
  let isRenewed = false;
  client.setAuth(async () =>
    isRenewed ? token("ada") : token("ada", { iat: now - 10_000, exp: now + 2 }),
  );
  await until(() => seen.at(-1) === "ada");
  await sleep(200);
  isRenewed = true;
  await sleep(2500);

  await client.mutation(api.send, { channel, body: "once" });

  assert.deepEqual(bodies(await clients.http().query(api.list, { channel })), ["once"]);
  const refusals = clients.heard("AuthError").map((error) => error.authUpdateAttempted);
  assert.deepEqual(refusals, [false]);
});
