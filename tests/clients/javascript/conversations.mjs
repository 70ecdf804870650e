// Talks to a server of `tests/proofs/frames_app` in the ways of the official client, to be recorded:
// node conversations.mjs URL TOKEN
import { ConvexClient } from "convex/browser";
import { anyApi } from "convex/server";
import WebSocket from "ws";

const [url, token] = process.argv.slice(2);
const api = anyApi.notes;
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** One client, whose connections can be cut. */
async function conversation(talk) {
  const sockets = [];
  const client = new ConvexClient(url, {
    logger: false,
    unsavedChangesWarning: false,
    skipConvexDeploymentUrlCheck: true,
    reportDebugInfoToConvex: true,
    webSocketConstructor: class extends WebSocket {
      constructor(...args) {
        super(...args);
        sockets.push(this);
      }
    },
  });
  const cut = async () => {
    sockets.at(-1).terminate();
    await sleep(1_700);
  };
  await talk(client, cut);
  await sleep(100);
  await client.close();
}

const seen = (client, fn, args) =>
  new Promise((resolve) => client.onUpdate(fn, args, resolve, resolve));
const failed = (promise) => promise.catch(() => null);

await conversation(async (client) => {
  const stop = client.onUpdate(api.mine, {}, () => {});
  await seen(client, api.echo, { value: { a: [1, -0, NaN, 5n, new ArrayBuffer(3)], b: "\u{1f600}" } });
  stop();
  await seen(client, api.mine, {});
});
await conversation(async (client, cut) => {
  client.setAuth(async () => token);
  await seen(client, api.mine, {});
  await failed(client.mutation(api.write, { n: 1 }));
  await client.action(api.ask, { value: "x" });
  await cut();
  await seen(client, api.echo, { value: 1 });
});
await conversation(async (client, cut) => {
  client.setAuth(async () => token);
  for (const numItems of [1, 2, 3]) {
    await seen(client, api.page, { paginationOpts: { numItems, cursor: null } });
  }
  await cut();
  await seen(client, api.fail, { value: { code: 7n } });
});
await conversation(async (client) => {
  const calls = [1, 2, 3, 4, 5].map((n) => failed(client.mutation(api.write, { n })));
  const actions = ["a", null, [0.5]].map((value) => client.action(api.ask, { value }));
  await Promise.all([...calls, ...actions]);
  await failed(client.query(api.secret, {}));
});
await conversation(async (client) => {
  client.setAuth(async () => token);
  await seen(client, api.mine, {});
  client.setAuth(async () => null);
  await seen(client, api.echo, { value: null });
});
process.exit(0);
