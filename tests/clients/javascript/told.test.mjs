// What the official clients print and raise, word for word: while developing, and in production.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { ConvexClient, ConvexHttpClient } from "convex/browser";
import { makeFunctionReference } from "convex/server";
import { ConvexError } from "convex/values";
import WebSocket from "ws";

import { ADMIN_KEY, Server } from "./server.mjs";

const development = new Server("told", { app: "told_app" });
const production = new Server("told in production", { app: "told_app", redact: true });
before(() => Promise.all([development.start(), production.start()]));
after(() => Promise.all([development.stop(), production.stop()]));

const fn = (name) => makeFunctionReference(name);
const REQUEST = /\[Request ID: [0-9a-f]{16}\] Server Error/;

/** A client whose logger keeps what it would print; `%c` and the style that follows are left out. */
function live(t, server) {
  const printed = [];
  const keep = (level) => (...args) => {
    const [first, ...rest] = args;
    const isStyled = typeof first === "string" && first.startsWith("%c");
    printed.push([level, ...(isStyled ? [first.slice(2), ...rest.slice(1)] : args)].join(" "));
  };
  const client = new ConvexClient(server.url, {
    logger: { log: keep("log"), warn: keep("warn"), error: keep("error"), logVerbose() {} },
    unsavedChangesWarning: false,
    skipConvexDeploymentUrlCheck: true,
    webSocketConstructor: WebSocket,
  });
  t.after(() => client.close());
  return { client, printed };
}

const LINES = [
  `[LOG] 'posting' 'it\\'s "so"' 1 0.5 true null`,
  `[LOG] { a: [ 1, { b: 2n } ], 'c d': 'x' } [] {}`,
  `[DEBUG] 'a detail'`,
  `[INFO] 'sent 3'`,
  `[WARN] 'late'`,
  `[ERROR] 'broken\\nin two'`,
];

test("lines of a function are printed with its kind and name", async (t) => {
  const { client, printed } = live(t, development);
  for (const [kind, call, name] of [
    ["Q", "query", "told:says"],
    ["M", "mutation", "told:says_while_writing"],
    ["A", "action", "told:says_outside"],
  ]) {
    printed.length = 0;
    await client[call](fn(name), {});

    assert.deepEqual(
      printed,
      LINES.map((line) => `log [CONVEX ${kind}(${name})] ${line}`),
    );
  }
});

test("in production no line is printed", async (t) => {
  const { client, printed } = live(t, production);

  await client.query(fn("told:says"), {});
  await client.mutation(fn("told:says_while_writing"), {});
  await client.action(fn("told:says_outside"), {});
  await assert.rejects(client.query(fn("told:fails"), {}));

  assert.deepEqual(printed, []);
});

test("what is too much is cut, and says so", async (t) => {
  const { client, printed } = live(t, development);

  await client.query(fn("told:much"), {});

  const [first, last] = [printed[0], printed.at(-1)];
  assert.equal(printed.length, 256);
  assert.equal(first.length, "log [CONVEX Q(told:much)] ".length + 32768);
  assert.ok(first.endsWith("xx (truncated due to length)"));
  assert.ok(
    last.endsWith("[ERROR] 'Log overflow (maximum 256). Remaining log lines omitted.'"),
    last,
  );
});

// Each call that fails, and what it says below the line with its request.
const FAILURES = [
  ["query", "told:fails", {}, /^Uncaught Error: ValueError: no\n    at fails \(told\.py:\d+\)/],
  [
    "query",
    "told:fails",
    { how: "result" },
    /^ReturnsValidationError: Value does not match validator\./,
  ],
  [
    "query",
    "told:fails",
    { how: 5 },
    /^ArgumentValidationError: Value does not match validator\.\nPath: \.how/,
  ],
  [
    "query",
    "told:fails",
    { nope: 1 },
    /^ArgumentValidationError: Object contains extra field `nope` that is not in the validator\./,
  ],
  ["query", "told:nope", {}, /^Could not find public function for 'told:nope'\.$/],
  ["query", "told:innermost", {}, /^Could not find public function for 'told:innermost'\.$/],
  ["query", "nope", {}, /^Could not find public function for 'nope'\.$/],
  [
    "mutation",
    "told:fails",
    {},
    /^Trying to execute told\.js:fails as Mutation, but it is defined as Query\.$/,
  ],
  [
    "action",
    "told:fails",
    {},
    /^Trying to execute told\.js:fails as Action, but it is defined as Query\.$/,
  ],
  [
    "action",
    "told:outer",
    {},
    /^Uncaught Error: LookupError: nothing there\n(    at \w+ \(told\.py:\d+\).*\n?)+$/,
  ],
];

test("an error says what and where, over either transport", async (t) => {
  const { client } = live(t, development);
  const http = new ConvexHttpClient(development.url, { logger: false });
  for (const [call, name, args, says] of FAILURES) {
    const overHttp = await http[call](fn(name), args).catch((error) => error.message);
    const overSocket = await client[call](fn(name), args).catch((error) => error.message);

    const [head, ...below] = overHttp.split("\n");
    assert.match(head, REQUEST);
    assert.match(below.join("\n"), says, overHttp);
    assert.equal(
      overSocket
        .replace(/^\[CONVEX [QMA]\([^)]*\)\] /, "")
        .replace(REQUEST, "")
        .replace(/\n? +Called by client$/, ""),
      overHttp.replace(REQUEST, ""),
    );
  }
});

test("in production an error says its request and nothing else", async (t) => {
  const { client } = live(t, production);
  const http = new ConvexHttpClient(production.url, { logger: false });
  for (const [call, name, args] of FAILURES) {
    const overHttp = await http[call](fn(name), args).catch((error) => error.message);
    const overSocket = await client[call](fn(name), args).catch((error) => error.message);

    assert.match(overHttp, new RegExp(`^${REQUEST.source}$`));
    assert.match(overSocket, new RegExp(`^\\[CONVEX .*\\] ${REQUEST.source}\\s+Called by client$`));
  }
});

test("data of an error is everybody's, also where it is null", async (t) => {
  for (const server of [development, production]) {
    const { client } = live(t, server);
    const http = new ConvexHttpClient(server.url, { logger: false });
    for (const data of [null, "x", { code: 7n, at: [1.5] }]) {
      for (const either of [client, http]) {
        const error = await either
          .query(fn("told:fails"), { how: "data", data })
          .catch((failed) => failed);

        assert.ok(error instanceof ConvexError);
        assert.deepEqual(error.data, data);
        assert.match(error.message, REQUEST);
      }
    }
    const error = await client
      .mutation(fn("told:fails_while_writing"), {})
      .catch((failed) => failed);
    assert.deepEqual(error.data, { code: 7 });
  }
});

test("nothing is kept from an administrator", async (t) => {
  const { client, printed } = live(t, production);
  client.client.setAdminAuth(ADMIN_KEY);

  const error = await client.mutation(fn("told:fails_while_writing"), {}).catch((e) => e);
  await client.query(fn("told:says"), {});

  assert.match(error.message, /Uncaught ConvexError: /);
  assert.ok(printed.includes("log [CONVEX M(told:fails_while_writing)] [LOG] 'before'"));
  assert.ok(printed.includes(`log [CONVEX Q(told:says)] ${LINES[0]}`));
});
