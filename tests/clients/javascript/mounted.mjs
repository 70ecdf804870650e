// A client of an engine that is mounted at a prefix: node mounted.mjs URL
import { anyApi } from "convex/server";
import { ConvexClient, ConvexHttpClient } from "convex/browser";
import WebSocket from "ws";

const [url] = process.argv.slice(2);
const { messages, outside } = anyApi;
const options = { skipConvexDeploymentUrlCheck: true, logger: false };
const client = new ConvexClient(url, {
  ...options,
  unsavedChangesWarning: false,
  webSocketConstructor: WebSocket,
});

const seen = [];
let unsubscribe;
await new Promise((resolve, reject) => {
  unsubscribe = client.onUpdate(
    messages.bodies,
    {},
    (bodies) => {
      seen.push(bodies);
      if (bodies.length === 2) resolve();
      else client.mutation(messages.send, { body: `${bodies.length}` }).catch(reject);
    },
    reject,
  );
});
unsubscribe();
const acted = await client.action(outside.several_on_asyncio, {});
const refused = await client.mutation(messages.refuse, { data: { code: 7 } }).catch((e) => e.data);
const asked = await new ConvexHttpClient(url, options).query(messages.bodies, {});
await client.close();
console.log(JSON.stringify({ seen, acted, refused, asked: asked.sort() }));
