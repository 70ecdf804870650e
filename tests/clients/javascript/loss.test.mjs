// Connections that break, and servers that die: every mutation is done exactly once.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { api, bodies, Clients, freshName, sleep, until } from "./harness.mjs";
import { Server } from "./server.mjs";

const server = new Server("loss");
before(() => server.start());
after(() => server.stop());

const isConnected = (client) => client.connectionState().isWebSocketConnected;
const upTo = (n) => Array.from({ length: n }, (_, i) => i + 1);

test("what was missed while away is there after coming back", async (t) => {
  const clients = new Clients(t, server);
  const cable = await clients.cable();
  const client = clients.live({ url: cable.url });
  const channel = freshName();
  const shown = client.onUpdate(api.list, { channel }, () => {});
  await until(() => shown.getCurrentValue() !== undefined);

  cable.isUp = false;
  cable.cut();
  await until(() => !isConnected(client));
  await clients.http().mutation(api.send, { channel, body: "missed" });
  assert.deepEqual(shown.getCurrentValue(), []);
  cable.isUp = true;

  await until(() => shown.getCurrentValue().length === 1, "the news", 20_000);
});

test("a mutation whose answer was lost is not done again", async (t) => {
  const clients = new Clients(t, server);
  const cable = await clients.cable();
  const client = clients.live({ url: cable.url });
  const channel = freshName();
  await client.query(api.count, {});

  cable.losesAnswers = true;
  const sent = client.mutation(api.send, { channel, body: "once" });
  let stored = [];
  await until(() => {
    clients.http().query(api.list, { channel }).then((found) => (stored = found));
    return stored.length > 0;
  });
  cable.cut();
  cable.losesAnswers = false;
  const id = await sent;

  stored = await clients.http().query(api.list, { channel });
  assert.deepEqual(
    stored.map((message) => message._id),
    [id],
  );
  const sentTimes = clients.wires.flat().filter(({ said }) => said?.type === "Mutation").length;
  assert.ok(sentTimes >= 2, "the client sent it again");
});

test("mutations stay in order across broken connections", async (t) => {
  const clients = new Clients(t, server);
  const cable = await clients.cable();
  const client = clients.live({ url: cable.url });
  const name = freshName("counter");
  await client.query(api.count, {});

  const answers = [];
  for (let i = 0; i < 40; i++) {
    answers.push(client.mutation(api.slow_incr, { name }));
    if (i % 15 === 10) cable.cut();
    await sleep(10);
  }

  assert.deepEqual(await Promise.all(answers), upTo(40));
});

test("a client whose text was spoiled on its way is told so, and comes back", async (t) => {
  const clients = new Clients(t, server);
  const cable = await clients.cable();
  const client = clients.live({ url: cable.url });
  const channel = freshName();
  const shown = client.onUpdate(api.list, { channel }, () => {});
  await until(() => shown.getCurrentValue() !== undefined);

  const spoiled = Buffer.from([0x81, 0x82, 0, 0, 0, 0, 0xff, 0xfe]);
  cable.slip(spoiled);
  await until(() => clients.closings.length > 0);
  await client.mutation(api.send, { channel, body: "after" });

  await until(() => shown.getCurrentValue().length === 1);
  assert.deepEqual(clients.closings, [1007]);
});

test("an action that was under way is given up and not repeated", async (t) => {
  const clients = new Clients(t, server);
  const cable = await clients.cable();
  const client = clients.live({ url: cable.url });
  await client.query(api.count, {});

  cable.losesAnswers = true;
  const answer = client.action(api.add, { a: 1, b: 1 });
  await sleep(100);
  cable.cut();
  cable.losesAnswers = false;

  await assert.rejects(answer, /Connection lost while action was in flight/);
});

test("a page keeps its end across a broken connection", async (t) => {
  const clients = new Clients(t, server);
  const cable = await clients.cable();
  const channel = freshName();
  const http = clients.http();
  for (const n of [1, 2, 3]) await http.mutation(api.send, { channel, body: "x", n });
  const base = clients.base(() => {}, cable.url);
  const args = { channel, paginationOpts: { numItems: 2, cursor: null, id: 1 } };
  base.subscribe("conformance:paged", args);
  const ns = () => base.localQueryResult("conformance:paged", args)?.page.map(({ n }) => n);
  await until(() => ns() !== undefined);

  cable.isUp = false;
  cable.cut();
  await until(() => !base.connectionState().isWebSocketConnected);
  await http.mutation(api.send, { channel, body: "x", n: 1.5 });
  cable.isUp = true;

  await until(() => ns().length === 3, "the page to grow", 20_000);
  assert.deepEqual(ns(), [1, 1.5, 2]);
});

test("a server that is killed again and again loses and repeats nothing", async (t) => {
  const mortal = await new Server("mortal").start();
  t.after(() => mortal.kill());
  const clients = new Clients(t, mortal);
  const client = clients.live();
  const name = freshName("counter");
  const channel = freshName();
  const shown = client.onUpdate(api.list, { channel }, () => {});
  await until(() => shown.getCurrentValue() !== undefined);

  const counted = [];
  const writing = (async () => {
    for (let i = 0; i < 60; i++) {
      counted.push(client.mutation(api.slow_incr, { name }));
      client.mutation(api.send, { channel, body: `m${i}`, n: i });
      await sleep(15);
    }
  })();
  for (let i = 0; i < 3; i++) {
    await sleep(200);
    await mortal.kill();
    await mortal.start();
    await until(() => isConnected(client), "the client to come back", 30_000);
  }
  await writing;

  assert.deepEqual(await Promise.all(counted), upTo(60));
  await until(() => shown.getCurrentValue().length === 60);
  assert.deepEqual(
    shown.getCurrentValue().map((message) => message.n),
    upTo(60).map((i) => i - 1),
  );
});

test("a server that is told to stop does so at once, and clients come back", async (t) => {
  const polite = await new Server("polite").start();
  t.after(() => polite.kill());
  const clients = new Clients(t, polite);
  const client = clients.live();
  const channel = freshName();
  await client.mutation(api.send, { channel, body: "before" });

  const began = Date.now();
  const code = await polite.stop();
  const took = Date.now() - began;
  const answer = client.mutation(api.send, { channel, body: "after" });
  await polite.start();
  await answer;

  assert.equal(code, 0);
  assert.ok(took < 3000, `it took ${took} ms`);
  assert.deepEqual(bodies(await clients.http().query(api.list, { channel })), ["before", "after"]);
});
