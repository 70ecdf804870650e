// What tests of clients have in common: clients that are closed afterwards, and waiting.
import { anyApi } from "convex/server";
import { BaseConvexClient, ConvexClient, ConvexHttpClient } from "convex/browser";
import WebSocket from "ws";

import { Cable } from "../cable.mjs";

export const api = anyApi.conformance;

let count = 0;

/** A name that no other test writes to. */
export const freshName = (what = "channel") => `${what}-${process.pid}-${++count}`;

/** For one test: hands out clients of `server` and closes them when the test is over. */
export class Clients {
  constructor(t, server) {
    this.server = server;
    this.t = t;
    /** What each WebSocket said and heard, in order. */
    this.wires = [];
    /** The codes that connections were closed with. */
    this.closings = [];
  }

  http(auth) {
    return new ConvexHttpClient(this.server.url, { logger: false, auth });
  }

  live({ url = this.server.url, ...options } = {}) {
    const client = new ConvexClient(url, { ...this.options(), ...options });
    this.t.after(() => client.close());
    return client;
  }

  base(onTransition, url = this.server.url) {
    const client = new BaseConvexClient(url, onTransition, this.options());
    this.t.after(() => client.close());
    return client;
  }

  async cable() {
    const cable = await new Cable(this.server.url).plugIn();
    this.t.after(() => cable.close());
    return cable;
  }

  options() {
    const { wires, closings } = this;
    return {
      logger: false,
      unsavedChangesWarning: false,
      skipConvexDeploymentUrlCheck: true,
      webSocketConstructor: class extends WebSocket {
        constructor(...args) {
          super(...args);
          const wire = [];
          wires.push(wire);
          this.on("message", (data) => wire.push({ heard: JSON.parse(data.toString()) }));
          this.on("close", (code) => closings.push(code));
          this.said = (message) => wire.push({ said: message });
        }
        send(text, ...rest) {
          this.said(JSON.parse(text));
          super.send(text, ...rest);
        }
      },
    };
  }

  /** Messages of a type that the server sent, on all connections. */
  heard(type) {
    return this.wires.flat().flatMap(({ heard }) => (heard?.type === type ? [heard] : []));
  }
}

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Wait until `condition` holds. */
export async function until(condition, what = String(condition), ms = 10_000) {
  const deadline = Date.now() + ms;
  while (!condition()) {
    if (Date.now() > deadline) throw new Error(`waited ${ms} ms for: ${what}`);
    await sleep(5);
  }
}

export const bodies = (messages) => messages?.map((message) => message.body);
