// Programs that serve, a browser, and waiting for what both show.
import { spawn } from "node:child_process";
import { chromium } from "playwright-core";

export const python = process.env.HEADRACE_PYTHON ?? "python";
export const PATIENCE_MS = 20_000;
const START_MS = 60_000;
const STOP_MS = 15_000;

/** The environment of what is started: Vite builds for production unless this says otherwise. */
export const { NODE_ENV: _, ...environment } = process.env;

// A file of tests that takes too long is told to end, and takes along what it started.
const running = new Set();
process.once("SIGTERM", () => {
  for (const started of running) started.kill("SIGKILL");
  process.exit(1);
});

/** A program that goes on, from when it says where it listens. */
export class Program {
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
      env: { ...environment, NO_COLOR: "1", PYTHONUNBUFFERED: "1" },
      stdio: ["ignore", "pipe", "pipe"],
    });
    running.add(this.process);
    this.exited = new Promise((resolve) => this.process.on("exit", resolve));
    const begun = this.said.length;
    return await new Promise((resolve, reject) => {
      const tooLate = () => reject(new Error(`not begun in ${START_MS} ms: ${this.said}`));
      setTimeout(tooLate, START_MS).unref();
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

/** Chromium, without a screen. */
export async function launch() {
  return await chromium.launch({
    executablePath: process.env.CHROMIUM,
    args: ["--no-sandbox", "--disable-dev-shm-usage"],
  });
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
