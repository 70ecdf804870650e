// The official client as a window: shows a query, and does what it is told on standard input.
//
//     node window.mjs MODULES URL QUERY [ARGS]
//
// It says JSON lines: {shown}, a state of the query; {failed}, its error; {answered, value} for a
// mutation that it was told to run by {number, path, args}. Each has `connections`, how many
// WebSockets it has opened so far.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const [modules, url, query, args = "{}"] = process.argv.slice(2);
const require = createRequire(`${modules}/`);
const { ConvexClient } = require("convex/browser");
const WebSocket = require("ws");

let connections = 0;
class Counted extends WebSocket {
  constructor(...given) {
    super(...given);
    connections += 1;
  }
}

const say = (what) => console.log(JSON.stringify({ ...what, connections }));
const client = new ConvexClient(url, {
  webSocketConstructor: Counted,
  unsavedChangesWarning: false,
  logger: false,
});
client.onUpdate(
  query,
  JSON.parse(args),
  (shown) => say({ shown }),
  (error) => say({ failed: error.message }),
);
for await (const line of createInterface({ input: process.stdin })) {
  const { number, path, args } = JSON.parse(line);
  client.mutation(path, args).then(
    (value) => say({ answered: number, value }),
    (error) => say({ answered: number, error: error.message }),
  );
}
await client.close();
