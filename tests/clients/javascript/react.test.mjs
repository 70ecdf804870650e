// convex/react: hooks that show what the server says.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { ConvexProvider, ConvexReactClient } from "convex/react";
import { useAction, useMutation, usePaginatedQuery, useQuery } from "convex/react";
import { createElement } from "react";
import TestRenderer from "react-test-renderer";

import { api, bodies, Clients, freshName, until } from "./harness.mjs";
import { Server } from "./server.mjs";

const server = new Server("react");
before(() => server.start());
after(() => server.stop());

/** Render `component` with a client; what it returned last is in `now`. */
function rendered(t, clients, component) {
  const client = new ConvexReactClient(server.url, clients.options());
  const view = { now: undefined, renders: 0 };
  const Probe = () => {
    view.now = component();
    view.renders++;
    return null;
  };
  const tree = TestRenderer.create(
    createElement(ConvexProvider, { client }, createElement(Probe)),
  );
  t.after(async () => {
    tree.unmount();
    // Effects of what was last rendered still run, and need the client.
    await new Promise((resolve) => setTimeout(resolve, 50));
    await client.close();
  });
  return view;
}

test("useQuery follows, useMutation and useAction write", async (t) => {
  const clients = new Clients(t, server);
  const channel = freshName();
  const view = rendered(t, clients, () => ({
    messages: useQuery(api.list, { channel }),
    send: useMutation(api.send),
    sendByAction: useAction(api.send_via_action),
  }));
  await until(() => view.now?.messages !== undefined);

  await view.now.send({ channel, body: "a" });
  await view.now.sendByAction({ channel, body: "b" });
  await clients.http().mutation(api.send, { channel, body: "c" });

  await until(() => view.now.messages.length === 3);
  assert.deepEqual(bodies(view.now.messages), ["a", "b", "c"]);
});

test("an optimistic update shows at once and is kept", async (t) => {
  const clients = new Clients(t, server);
  const channel = freshName();
  const seen = new Set();
  const view = rendered(t, clients, () => {
    const messages = useQuery(api.list, { channel });
    if (messages) seen.add(bodies(messages).join());
    const send = useMutation(api.send).withOptimisticUpdate((store, args) => {
      const now = store.getQuery(api.list, { channel });
      store.setQuery(api.list, { channel }, [...now, { ...args, body: `?${args.body}` }]);
    });
    return { messages, send };
  });
  await until(() => view.now?.messages !== undefined);

  await view.now.send({ channel, body: "a" });
  await until(() => bodies(view.now.messages).join() === "a");

  assert.deepEqual([...seen], ["", "?a", "a"]);
});

test("usePaginatedQuery loads page after page, and pages grow in place", async (t) => {
  const clients = new Clients(t, server);
  const channel = freshName();
  const http = clients.http();
  for (let n = 1; n <= 7; n++) await http.mutation(api.send, { channel, body: "x", n });
  const view = rendered(t, clients, () =>
    usePaginatedQuery(api.paged, { channel }, { initialNumItems: 3 }),
  );
  const ns = () => view.now.results.map(({ n }) => n);
  await until(() => view.now?.status === "CanLoadMore");
  assert.deepEqual(ns(), [1, 2, 3]);

  view.now.loadMore(3);
  await until(() => view.now.status === "CanLoadMore" && ns().length === 6);
  await http.mutation(api.send, { channel, body: "x", n: 2.5 });
  await until(() => ns().length === 7);
  view.now.loadMore(3);
  await until(() => view.now.status === "Exhausted");

  assert.deepEqual(ns(), [1, 2, 2.5, 3, 4, 5, 6, 7]);
});

test("usePaginatedQuery shows what a search finds once, and all of it, while others write", async (t) => {
  const clients = new Clients(t, server);
  const channel = freshName();
  const http = clients.http();
  const send = (n, body) => http.mutation(api.send, { channel, body, n });
  const ids = [];
  for (let n = 0; n < 7; n++) ids.push(await send(n, "heron ".repeat(1 + (n % 3)) + "there"));
  const view = rendered(t, clients, () =>
    usePaginatedQuery(api.searched, { channel, text: "heron" }, { initialNumItems: 3 }),
  );
  const ns = () => view.now.results.map(({ n }) => n).sort();
  await until(() => view.now?.status === "CanLoadMore");
  const first = ns();

  await send(7, "heron");
  await send(8, "others are longer, and without the word ".repeat(9));
  for (const n of first) await http.mutation(api.edit, { message: ids[n], body: "a heron flew" });
  await until(() => view.now.results.every(({ body }) => body === "a heron flew"));
  assert.deepEqual(ns(), first);
  view.now.loadMore(3);
  await until(() => view.now.status === "CanLoadMore" && ns().length === 6);
  await http.mutation(api.edit, { message: ids[first[0]], body: "gone" });
  await until(() => ns().length === 5);
  view.now.loadMore(3);
  await until(() => view.now.status === "Exhausted");
  await send(9, "heron heron heron heron");
  await until(() => ns().length === 8);

  assert.deepEqual(ns(), [0, 1, 2, 3, 4, 5, 6, 7, 9].filter((n) => n !== first[0]));
});

test("a page that grew too long is split without a gap", async (t) => {
  const clients = new Clients(t, server);
  const channel = freshName();
  const http = clients.http();
  for (let n = 1; n <= 4; n++) await http.mutation(api.send, { channel, body: "x", n });
  const view = rendered(t, clients, () =>
    usePaginatedQuery(api.paged, { channel }, { initialNumItems: 3 }),
  );
  await until(() => view.now?.status === "CanLoadMore");

  for (let i = 1; i <= 8; i++) await http.mutation(api.send, { channel, body: "x", n: i / 10 });
  const ns = () => view.now.results.map(({ n }) => n);
  await until(() => ns().length === 11);

  assert.deepEqual(ns(), [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1, 2, 3]);
  const asked = () => clients.wires.flat().flatMap(({ said }) => said?.modifications ?? []);
  assert.ok(asked().some(({ args }) => args?.[0]?.paginationOpts?.endCursor), "it was split");
});
