// A project as `headrace init --template react` makes it, built and served, and windows on it.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { anyApi } from "convex/server";
import { ConvexHttpClient } from "convex/browser";

import { Cable } from "../cable.mjs";
import { environment, launch, PATIENCE_MS, Program, python } from "./program.mjs";

/** The project: its engine by `headrace dev`, and its page as `npm run build` leaves it. */
export class Project {
  constructor() {
    this.parent = fs.mkdtempSync(path.join(os.tmpdir(), "headrace-browser-"));
    this.folder = path.join(this.parent, "chat");
    const engine = ["-m", "engine", "dev"];
    this.engine = new Program(this.folder, python, engine, /Serving .* at (http:\/\/\S+),[^]*Pushed/);
    this.page = this.vite("preview");
  }

  vite(...args) {
    const vite = path.join(this.folder, "node_modules", ".bin", "vite");
    const anyPort = ["--host", "127.0.0.1", "--port", "0"];
    return new Program(this.folder, vite, [...args, ...anyPort], /Local: +(http:\/\/[^\s/]+)/);
  }

  async start() {
    this.run(this.parent, python, "-m", "engine", "init", "chat", "--template", "react");
    this.run(this.folder, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline");
    this.url = await this.engine.start("--port", "0");
    this.run(this.folder, "npm", "run", "build");
    this.pageUrl = await this.page.start();
    this.browser = await launch();
  }

  run(folder, command, ...args) {
    try {
      execFileSync(command, args, { cwd: folder, env: environment, encoding: "utf8", stdio: "pipe" });
    } catch (error) {
      throw new Error(`${command} ${args.join(" ")}:\n${error.stdout}\n${error.stderr}`);
    }
  }

  /** The engine again, at the same address and with the same data. */
  async restart() {
    await this.engine.start("--port", new URL(this.url).port);
  }

  async stop() {
    await this.browser?.close();
    await Promise.all([this.page.stop(), this.engine.stop()]);
    fs.rmSync(this.parent, { recursive: true, force: true });
  }

  /** Vite as `npm run dev` starts it, for the length of a test; where its page is. */
  async develop(t) {
    const vite = this.vite();
    t.after(() => vite.stop());
    return await vite.start();
  }

  /** Save a file of the project with something else in it. */
  edit(name, before, after) {
    const file = path.join(this.folder, name);
    const text = fs.readFileSync(file, "utf8");
    assert.ok(text.includes(before), `${name} has no ${before}`);
    fs.writeFileSync(file, text.replace(before, after));
  }

  /** A window of somebody's own, with a cable of its own, for the length of a test. */
  async open(t, name, url = this.pageUrl) {
    const cable = await new Cable(url).plugIn();
    const context = await this.browser.newContext({ viewport: { width: 900, height: 700 } });
    t.after(async () => {
      await context.close();
      cable.close();
    });
    const tab = await context.newPage();
    tab.setDefaultTimeout(PATIENCE_MS);
    await tab.goto(cable.url);
    const window = new Window(tab, cable);
    if (name) await window.signIn(name);
    return window;
  }

  /** Somebody who uses the HTTP API. */
  async someone(name) {
    const client = new ConvexHttpClient(this.url, { logger: false });
    client.setAuth(await client.action(anyApi.dev_issuer.sign_in, { name }));
    return client;
  }

  /** What was said, oldest first, as the engine has it. */
  async bodies() {
    const client = new ConvexHttpClient(this.url, { logger: false });
    const said = [];
    for (let cursor = null, isDone = false; !isDone; ) {
      const paginationOpts = { numItems: 1000, cursor };
      const page = await client.query(anyApi.messages.list, { paginationOpts });
      said.unshift(...page.page.map((message) => message.body).reverse());
      ({ isDone, continueCursor: cursor } = page);
    }
    return said;
  }
}

/** A window, as somebody uses it. */
export class Window {
  constructor(tab, cable) {
    this.tab = tab;
    this.cable = cable;
    this.composer = tab.getByLabel("Message", { exact: true });
    this.banner = tab.getByText("No connection");
  }

  async signIn(name) {
    await this.tab.getByLabel("Your name").fill(name);
    await this.tab.getByRole("button", { name: "Sign in" }).click();
    await this.composer.waitFor();
  }

  async signOut() {
    await this.tab.getByRole("button", { name: "Sign out" }).click();
    await this.tab.getByLabel("Your name").waitFor();
  }

  async say(body) {
    await this.composer.fill(body);
    await this.composer.press("Enter");
  }

  /** What it shows, oldest first: id, text, and whether the server has not got it yet. */
  async shown() {
    return await this.tab.locator("article").evaluateAll((rows) =>
      rows.reverse().map((row) => ({
        id: row.dataset.id,
        body: row.querySelector("p").firstChild.data,
        isPending: row.ariaBusy === "true",
      })),
    );
  }

  async bodies() {
    return (await this.shown()).map(({ body }) => body);
  }

  /** The names in the header. */
  async names() {
    return await this.tab.locator(".online").getAttribute("title");
  }

  /** Take it off the net: what is under way is lost, and nothing goes through. */
  async unplug() {
    this.cable.isUp = false;
    this.cable.cut();
    await this.tab.context().setOffline(true);
  }

  async plugIn() {
    this.cable.isUp = true;
    await this.tab.context().setOffline(false);
  }
}
