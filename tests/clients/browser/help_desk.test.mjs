// The help desk of ops/demo, as people have it: its page in two windows.
import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { anyApi } from "convex/server";
import { ConvexHttpClient } from "convex/browser";

import { eventually, launch, PATIENCE_MS, Program, python } from "./program.mjs";

const root = fileURLToPath(new URL("../../../", import.meta.url));
const data = fs.mkdtempSync(path.join(os.tmpdir(), "headrace-desk-"));
const command = ["-m", "ops.helpdesk", "--port", "0", "--empty", "--data", data];
const desk = new Program(root, python, command, /The help desk is open: (\S+)/);
let browser, url;

before(async () => {
  url = await desk.start();
  browser = await launch();
});
after(async () => {
  await browser?.close();
  await desk.stop();
  fs.rmSync(data, { recursive: true, force: true });
});

test("what is asked in one window of the help desk shows in the other", async () => {
  const about = { module: "json", name: "dumps", kind: "function", text: "Serialize obj to JSON." };
  const operator = new ConvexHttpClient(url, { logger: false });
  await operator.mutation(anyApi.desk.add, { entries: [about] });
  const [asking, reading] = [await opened(), await opened()];
  const questions = [
    ["Ada", "json", "How do I keep the order of keys?"],
    ["Grace", "asyncio", "Why does my task disappear while it runs?"],
  ];

  for (const window of [asking, reading]) await window.getByText("json.dumps").waitFor();
  for (const [author, module, text] of questions) {
    await asking.getByLabel("Your name").fill(author);
    await asking.getByLabel("Module", { exact: true }).fill(module);
    await asking.getByLabel("Your question").fill(text);
    await asking.getByRole("button", { name: "Ask" }).click();
    await reading.getByText(text).waitFor();
  }

  const newestFirst = questions.map(([, , text]) => text).reverse();
  for (const window of [asking, reading]) {
    await eventually(
      () => window.locator("#questions strong").allTextContents(),
      (shown) => assert.deepEqual(shown, newestFirst),
    );
    await window.getByText("See json.dumps.").waitFor();
    await window.getByText("1 entries, 1 questions").waitFor();
  }
});

test("a migration adds a field to what is shown, and who asks too much has to wait", async () => {
  const about = { module: "json", name: "loads", kind: "function", text: "Deserialize a document." };
  const operator = new ConvexHttpClient(url, { logger: false });
  await operator.mutation(anyApi.desk.add, { entries: [about] });
  const window = await opened();
  await window.getByText("json.loads").waitFor();
  await window.getByText("3 questions left").waitFor();

  await operator.mutation(anyApi.desk.count_all_words, {});
  await window.getByText("function, 3 words").waitFor();

  await window.getByLabel("Your name").fill("Eve");
  for (const text of ["Once?", "Twice?", "Thrice?"]) {
    await window.getByLabel("Your question").fill(text);
    await window.getByRole("button", { name: "Ask" }).click();
    await window.locator("#questions").getByText(text).waitFor();
  }
  await window.getByText("Please wait a moment").waitFor();
  await window.getByLabel("Your question").fill("Too often?");
  await window.getByRole("button", { name: "Ask" }).click();
  await eventually(
    () => window.getByLabel("Your question").inputValue(),
    (left) => assert.equal(left, "Too often?"),
  );
  assert.equal(await window.locator("#questions").getByText("Too often?").count(), 0);
});

async function opened() {
  const window = await (await browser.newContext()).newPage();
  window.setDefaultTimeout(PATIENCE_MS);
  await window.goto(url);
  return window;
}
