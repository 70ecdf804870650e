// Follows the questions with the official client and says each state on a line; asks what it is told to.
import { createInterface } from "node:readline";
import { ConvexClient } from "convex/browser";

const client = new ConvexClient(process.argv[2]);
const say = (kind, value) => console.log(JSON.stringify({ kind, value }));
client.onUpdate("desk:questions", {}, (rows) => say("questions", rows.map((row) => row.text)));
for await (const text of createInterface({ input: process.stdin })) {
  say("asked", await client.mutation("desk:ask", { author: "check", text, module: "json" }));
}
await client.close();
