// Official clients of the counters that `ops/prove network` serves, each on a line of its own.
//
//   node network.mjs '[{"who": "js0", "url": "http://127.0.0.1:4000"}, ...]'
//
// They write and show until a line on stdin says `stop`; once all they asked for is done, a line on
// stdout says `done`. The next line on stdin has the total that all have to come to show, and in how
// many seconds. The last on stdout is a list of what each did, was told, and found wrong.
import { createInterface } from "node:readline";
import { BaseConvexClient } from "convex/browser";
import WebSocket from "ws";

import { sleep } from "./harness.mjs";

const PACE_MS = 50; // between two mutations, on average
const UNANSWERED_MAX = 20;

const timestamp = (text) => Buffer.from(text, "base64").readBigUInt64LE();

/** One client that counts, and looks at all it shows whenever that changes. */
class Counting {
  constructor({ who, url }) {
    this.who = who;
    this.account = { who, acknowledged: [], shown: 0, repeated: 0, connections: 0, problems: [] };
    this.unanswered = 0;
    this.completed = 0;
    this.said = new Map();
    this.client = new BaseConvexClient(url, () => this.look(), {
      logger: false,
      unsavedChangesWarning: false,
      skipConvexDeploymentUrlCheck: true,
      webSocketConstructor: this.tapped(),
    });
    for (const [path, args] of this.queries()) this.client.subscribe(path, args);
  }

  queries() {
    return [
      ["main:total", {}],
      ["main:counters", {}],
      ["main:newest", { who: this.who }],
    ];
  }

  note(problem) {
    this.account.problems.push(`${this.who}: ${problem}`);
  }

  /** Write until it is over, and wait until all of it is done. */
  async count(isOver) {
    for (let number = 0; !isOver(); number++) {
      await sleep(-Math.log(1 - Math.random()) * PACE_MS);
      while (this.unanswered >= UNANSWERED_MAX && !isOver()) await sleep(10);
      if (!isOver()) this.add(number);
    }
    while (this.unanswered) await sleep(10);
  }

  async add(number) {
    this.unanswered++;
    try {
      const answer = await this.client.mutation("main:add", { who: this.who, number });
      this.account.acknowledged[number] = answer;
      this.completed++;
      this.look();
    } catch (error) {
      this.note(`${number} failed: ${error.message}`);
    }
    this.unanswered--;
  }

  /** Everything on the screen is of one state, and shows what was acknowledged. */
  look() {
    const [total, counters, newest] = this.screen();
    if (newest === undefined || total === undefined || counters === undefined) return;
    this.account.shown++;
    const own = counters[this.who] ?? 0;
    if (total !== sum(counters)) this.note(`saw ${total} and its parts ${said(counters)}`);
    if (newest.some((number, back) => number !== own - 1 - back)) {
      this.note(`saw ${said(newest)} as the newest of ${own}`);
    }
    if (own < this.completed) this.note(`completed ${this.completed} and saw ${own}`);
    if (total < this.total) this.note(`went back from ${this.total} to ${total}`);
    this.total = total;
  }

  screen() {
    return this.queries().map(([path, args]) => this.client.localQueryResult(path, args));
  }

  shows(total) {
    const [shown, counters] = this.screen();
    return shown === total && sum(counters) === total;
  }

  /** A WebSocket that looks whether answers come before what shows them. */
  tapped() {
    const counting = this;
    return class extends WebSocket {
      constructor(...args) {
        super(...args);
        this.connection = counting.account.connections++;
        this.covered = 0n;
        this.answered = new Set();
        this.on("message", (data) => this.heard(JSON.parse(data.toString())));
      }

      send(text, ...rest) {
        const { type, requestId } = JSON.parse(text);
        if (type === "Mutation") {
          if (counting.said.has(requestId)) counting.account.repeated++;
          else counting.said.set(requestId, this.connection);
        }
        super.send(text, ...rest);
      }

      heard(message) {
        if (message.type === "Transition") this.covered = timestamp(message.endVersion.ts);
        if (message.type === "FatalError") counting.note(`heard ${message.error}`);
        if (message.type !== "MutationResponse" || this.answered.has(message.requestId)) return;
        this.answered.add(message.requestId);
        const isFirst = counting.said.get(message.requestId) === this.connection;
        if (isFirst && message.success && this.covered >= timestamp(message.ts)) {
          counting.note(`${message.requestId} was answered after the transition that shows it`);
        }
      }
    };
  }
}

const sum = (counters = {}) => Object.values(counters).reduce((all, one) => all + one, 0);
const said = (value) => JSON.stringify(value);

const clients = JSON.parse(process.argv[2]).map((one) => new Counting(one));
process.on("uncaughtException", (error) => clients[0].note(`thrown: ${error.stack}`));

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
let isOver = false;
const counting = clients.map((client) => client.count(() => isOver));
await lines.next();
isOver = true;
await Promise.all(counting);
console.log("done");

const [total, seconds] = (await lines.next()).value.split(" ").map(Number);
const deadline = Date.now() + seconds * 900; // before whoever waits gives up
for (const client of clients) {
  while (!client.shows(total) && Date.now() < deadline) await sleep(10);
  if (!client.shows(total)) client.note(`stayed at ${said(client.screen())}, not ${total}`);
}
const accounts = JSON.stringify(clients.map((client) => client.account));
process.stdout.write(`${accounts}\n`, () => process.exit(0));
