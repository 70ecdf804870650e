// A project as `headrace init --template react` makes it, built and served, and windows on it.
import { execFileSync, spawn } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { anyApi } from "convex/server";
import { ConvexHttpClient } from "convex/browser";
import { chromium } from "playwright-core";

import { Cable } from "../cable.mjs";

const python = process.env.HEADRACE_PYTHON ?? "python";
const PATIENCE_MS = 20_000;
const STOP_MS = 15_000;

/** The environment of what is started: Vite builds for production unless this says otherwise. */
const { NODE_ENV: _, ...env } = process.env;

/** A program that goes on, from when it says where it listens. */
class Program {
  constructor(folder, command, args, listening) {
    this.folder = folder;
    this.command = command;
    this.args = args;
    this.listening = listening;
    this.said = "";
  }

  async start(...more) {
    this.process = spawn(this.command, [...this.args, ...more], {
      cwd: this.folder,
      env: { ...env, NO_COLOR: "1", PYTHONUNBUFFERED: "1" },
      stdio: ["ignore", "pipe", "pipe"],
    });
    this.exited = new Promise((resolve) => this.process.on("exit", resolve));
    const begun = this.said.length;
    return await new Promise((resolve, reject) => {
      const listen = (data) => {
        this.said += data;
        const found = this.listening.exec(this.said.slice(begun));
        if (found) resolve(found[1]);
      };
      this.process.stdout.on("data", listen);
      this.process.stderr.on("data", listen);
      this.exited.then((code) => reject(new Error(`exited with ${code}: ${this.said}`)));
    });
  }

  /** End it as the operating system would, with no time to say goodbye. */
  async kill() {
    this.process?.kill("SIGKILL");
    await this.exited;
  }

  async stop() {
    this.process?.kill("SIGTERM");
    const timer = setTimeout(() => this.process?.kill("SIGKILL"), STOP_MS);
    await this.exited;
    clearTimeout(timer);
  }
}

/** The project: its engine by `headrace dev`, and its page as `npm run build` leaves it. */
export class Project {
  constructor() {
    this.parent = fs.mkdtempSync(path.join(os.tmpdir(), "headrace-browser-"));
    this.folder = path.join(this.parent, "chat");
    const engine = ["-m", "engine", "dev"];
    this.engine = new Program(this.folder, python, engine, /Serving .* at (http:\/\/\S+),[^]*Pushed/);
    const vite = path.join(this.folder, "node_modules", ".bin", "vite");
    const preview = ["preview", "--host", "127.0.0.1", "--port", "0"];
    this.page = new Program(this.folder, vite, preview, /Local: +(http:\/\/[^\s/]+)/);
  }

  async start() {
    this.run(this.parent, python, "-m", "engine", "init", "chat", "--template", "react");
    this.run(this.folder, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline");
    this.url = await this.engine.start("--port", "0");
    this.run(this.folder, "npm", "run", "build");
    this.pageUrl = await this.page.start();
    this.browser = await chromium.launch({
      executablePath: process.env.CHROMIUM,
      args: ["--no-sandbox", "--disable-dev-shm-usage"],
    });
  }

  run(folder, command, ...args) {
    try {
      execFileSync(command, args, { cwd: folder, env, encoding: "utf8", stdio: "pipe" });
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

  /** A window of somebody's own, with a cable of its own, for the length of a test. */
  async open(t, name) {
    const cable = await new Cable(this.pageUrl).plugIn();
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

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Wait until what `look` finds passes `check`; its last complaint, if it never does. */
export async function eventually(look, check) {
  const deadline = Date.now() + PATIENCE_MS;
  for (;;) {
    try {
      const found = await look();
      check(found);
      return found;
    } catch (complaint) {
      if (Date.now() > deadline) throw complaint;
      await sleep(20);
    }
  }
}
