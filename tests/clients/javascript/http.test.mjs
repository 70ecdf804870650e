// ConvexHttpClient.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { makeFunctionReference } from "convex/server";
import { ConvexError } from "convex/values";

import { api, bodies, Clients, freshName } from "./harness.mjs";
import { ADMIN_KEY, forged, ISSUER, Server, token } from "./server.mjs";

const server = new Server("http");
before(() => server.start());
after(() => server.stop());

test("a document is written and read back", async (t) => {
  const http = new Clients(t, server).http();
  const channel = freshName();

  const id = await http.mutation(api.send, { channel, body: "hello", n: 1 });
  const [message] = await http.query(api.list, { channel });

  assert.equal(message._id, id);
  assert.match(id, /^[0-9a-z]{31,37}$/);
  assert.deepEqual([message.channel, message.body, message.n], [channel, "hello", 1]);
  assert.ok(Math.abs(message._creationTime - Date.now()) < 60_000);
});

const VALUES = [
  null,
  true,
  0,
  -0,
  5,
  -1.5,
  2 ** 53,
  1e300,
  5e-324,
  NaN,
  Infinity,
  -Infinity,
  0n,
  2n ** 63n - 1n,
  -(2n ** 63n),
  "",
  "h\u00e9llo \u{1f600} \u0000 \"q\"",
  new ArrayBuffer(0),
  Uint8Array.from({ length: 256 }, (_, i) => i).buffer,
  [],
  [1, [2n, ["x"]]],
  {},
  { a: 1, _b: { "c d": [null] }, toString: "not a method" },
];

test("every value comes back as it was sent", async (t) => {
  const http = new Clients(t, server).http();

  const echoed = await Promise.all(VALUES.map((value) => http.query(api.echo, { value })));

  assert.deepEqual(echoed, VALUES);
});

test("data of an application's error reaches the client", async (t) => {
  const http = new Clients(t, server).http();
  const kinds = ["convex_error", "convex_string", "convex_null"];

  const errors = await Promise.all(
    kinds.map((kind) => http.query(api.fails, { kind }).catch((error) => error)),
  );

  assert.ok(errors.every((error) => error instanceof ConvexError));
  const detail = { big: 7n, items: [1, 2, 3], n: 1 };
  assert.deepEqual(
    errors.map((error) => error.data),
    [{ code: "CONFORMANCE", detail }, "just a string", null],
  );
});

test("any other error has a request id and no data", async (t) => {
  const http = new Clients(t, server).http();

  const error = await http.query(api.fails, { kind: "error" }).catch((e) => e);

  assert.ok(!(error instanceof ConvexError));
  assert.match(error.message, /^\[Request ID: [0-9a-f]{16}\] Server Error\n/);
});

test("a mutation that fails leaves nothing behind", async (t) => {
  const http = new Clients(t, server).http();
  const channel = freshName();

  const error = await http.mutation(api.fail_after_write, { channel }).catch((e) => e);

  assert.deepEqual(error.data, { code: "ROLLED_BACK" });
  assert.deepEqual(await http.query(api.list, { channel }), []);
});

test("what is not there or not public is not found", async (t) => {
  const http = new Clients(t, server).http();
  for (const name of ["conformance:nope", "conformance:secret", "nowhere:f"]) {
    for (const call of ["query", "mutation", "action"]) {
      await assert.rejects(
        http[call](makeFunctionReference(name), {}),
        new RegExp(`Could not find public function for '${name}'`),
      );
    }
  }
});

test("mutations that race lose no update", async (t) => {
  const http = new Clients(t, server).http();
  const name = freshName("counter");

  const values = await Promise.all(
    Array.from({ length: 30 }, () => http.mutation(api.slow_incr, { name }, { skipQueue: true })),
  );

  assert.deepEqual(
    values.sort((a, b) => a - b),
    Array.from({ length: 30 }, (_, i) => i + 1),
  );
});

test("consistent queries see one state", async (t) => {
  const clients = new Clients(t, server);
  const [reader, writer] = [clients.http(), clients.http()];
  const channel = freshName();
  await writer.mutation(api.send, { channel, body: "before" });

  const first = await reader.consistentQuery(api.list, { channel });
  await writer.mutation(api.send, { channel, body: "after" });
  const second = await reader.consistentQuery(api.list, { channel });

  assert.deepEqual([bodies(first), bodies(second)], [["before"], ["before"]]);
  assert.deepEqual(bodies(await reader.query(api.list, { channel })), ["before", "after"]);
});

test("a token says who is asking", async (t) => {
  const clients = new Clients(t, server);

  const me = await clients.http(token("ada")).query(api.whoami, {});

  assert.deepEqual(
    [me.subject, me.issuer, me.tokenIdentifier],
    ["ada", ISSUER, `${ISSUER}|ada`],
  );
  assert.equal(await clients.http().query(api.whoami, {}), null);
});

test("a token that proves nothing is refused before anything runs", async (t) => {
  const clients = new Clients(t, server);
  const tokens = [
    forged("ada"),
    token("ada", { seconds: -1 }),
    token("ada", { aud: "another" }),
    token("ada", { iss: "https://another.test" }),
    "not.a.token",
  ];
  for (const bad of tokens) {
    await assert.rejects(clients.http(bad).query(api.whoami, {}), /"code"/);
  }
});

test("the admin key opens internal functions and acts as users", async (t) => {
  const http = new Clients(t, server).http();
  http.setAdminAuth(ADMIN_KEY);
  assert.equal(await http.function(api.secret, undefined, {}), "secret");

  http.setAdminAuth(ADMIN_KEY, { issuer: "i", subject: "bob", tokenIdentifier: "i|bob" });
  assert.equal((await http.query(api.whoami, {})).subject, "bob");

  http.setAdminAuth("test|wrong");
  await assert.rejects(http.function(api.secret, undefined, {}));
});
