// One server for the tests of a run, or one of its own for a test that kills it.
import { spawn } from "node:child_process";
import crypto from "node:crypto";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../../../", import.meta.url));
const python = process.env.HEADRACE_PYTHON ?? "python";

export const ADMIN_KEY = "test|0123456789";
export const ISSUER = "https://auth.clients.test";
const AUDIENCE = "clients";
const KID = "the-key";

const { publicKey, privateKey } = crypto.generateKeyPairSync("rsa", {
  modulusLength: 2048,
});
export const folder = fs.mkdtempSync(path.join(os.tmpdir(), "headrace-clients-"));
const keys = [{ ...publicKey.export({ format: "jwk" }), alg: "RS256", use: "sig", kid: KID }];
fs.writeFileSync(
  path.join(folder, "auth.json"),
  JSON.stringify({
    issuer: ISSUER,
    applicationID: AUDIENCE,
    algorithm: "RS256",
    jwks: `data:application/json,${encodeURIComponent(JSON.stringify({ keys }))}`,
  }),
);

/** A token for `sub`, good for `seconds`; other claims override. */
export function token(sub, { seconds = 3600, key = privateKey, ...claims } = {}) {
  const now = Math.floor(Date.now() / 1000);
  const given = { iss: ISSUER, aud: AUDIENCE, sub, iat: now, exp: now + seconds, ...claims };
  const text = [{ alg: "RS256", kid: KID, typ: "JWT" }, { ...given, jti: crypto.randomUUID() }]
    .map((part) => Buffer.from(JSON.stringify(part)).toString("base64url"))
    .join(".");
  const signature = crypto.sign("RSA-SHA256", Buffer.from(text), key).toString("base64url");
  return `${text}.${signature}`;
}

/** A token signed by somebody else. */
export function forged(sub) {
  return token(sub, { key: crypto.generateKeyPairSync("rsa", { modulusLength: 2048 }).privateKey });
}

/** A server in a process of its own; `redact` is production. */
export class Server {
  constructor(name, { app = "conformance_app", redact = false } = {}) {
    this.data = path.join(folder, name);
    this.app = app;
    this.options = redact ? ["--redact"] : [];
    this.port = 0;
  }

  /** Start it, at the same port as before if it ran before. */
  async start() {
    const args = ["-m", "tests.clients.serve", this.app, ...this.options];
    args.push("--data", this.data, "--port", String(this.port), "--admin-key", ADMIN_KEY);
    this.process = spawn(python, args, {
      cwd: root,
      env: { ...process.env, CONFORMANCE_AUTH: folder },
      stdio: ["ignore", "pipe", "inherit"],
    });
    this.exited = new Promise((resolve) => this.process.on("exit", resolve));
    let said = "";
    this.url = await new Promise((resolve, reject) => {
      this.process.stdout.on("data", (data) => {
        said += data;
        const found = /^(http:\/\/\S+)$/m.exec(said);
        if (found) resolve(found[1]);
      });
      this.exited.then((code) => reject(new Error(`the server exited with ${code}: ${said}`)));
    });
    this.port = Number(new URL(this.url).port);
    return this;
  }

  /** End it as the operating system would, with no time to say goodbye. */
  async kill() {
    this.process.kill("SIGKILL");
    await this.exited;
  }

  /** Tell it to stop, and wait until it has. */
  async stop() {
    this.process.kill("SIGTERM");
    return await this.exited;
  }
}
