// The application of `headrace init --template react`, as people have it: several windows on it.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { anyApi } from "convex/server";

import { eventually, sleep } from "./program.mjs";
import { Project } from "./project.mjs";

const project = new Project();
before(() => project.start());
after(() => project.stop());

const same = (expected) => (actual) => assert.deepEqual(actual, expected);
const last = (count) => async (window) => (await window.bodies()).slice(-count);

test("what one window says shows in it at once, and in the other when the server has it", async (t) => {
  const [ada, bob] = [await project.open(t, "Ada"), await project.open(t, "Bob")];

  ada.cable.hold();
  await ada.say("one");
  const atOnce = await eventually(() => ada.shown(), (rows) => assert.equal(rows.length, 1));
  const elsewhere = await bob.bodies();
  ada.cable.release();
  await eventually(() => bob.bodies(), same(["one"]));
  for (const [window, body] of [[bob, "two"], [ada, "three"], [bob, "four"]]) {
    await window.say(body);
    // In the window that says it, it is there before the server has it.
    for (const each of [ada, bob]) {
      await eventually(() => each.bodies(), (bodies) => assert.ok(bodies.includes(body)));
    }
  }

  same([{ body: "one", isPending: true }])(atOnce.map(({ id, ...row }) => row));
  same([])(elsewhere);
  for (const window of [ada, bob]) {
    await eventually(() => window.bodies(), same(["one", "two", "three", "four"]));
  }
  const rows = await ada.shown();
  same(await bob.shown())(rows);
  assert.ok(rows.every(({ isPending }) => !isPending));
});

test("whoever scrolls up through pages misses nothing and sees nothing twice while others write", async (t) => {
  const writer = await project.someone("Cy");
  let count = 0;
  const write = () => writer.mutation(anyApi.messages.send, { body: `number ${++count}` });
  while (count < 150) await write();
  const reader = await project.open(t);
  await eventually(() => last(1)(reader), same(["number 150"]));

  let reached = false;
  const writing = (async () => {
    while (!reached) await Promise.all([write(), sleep(30)]);
  })();
  await reader.tab.getByLabel("Messages").hover();
  const beginning = reader.tab.getByText("This is the beginning.");
  const scroll = async () => {
    await reader.tab.mouse.wheel(0, -700);
    return await beginning.isVisible();
  };
  await eventually(scroll, assert.ok).finally(() => (reached = true));
  await writing;

  assert.ok(count > 160, `written meanwhile: ${count - 150}`);
  await eventually(() => reader.bodies(), same(await project.bodies()));
  same(Array.from({ length: count }, (_, at) => `number ${at + 1}`))(await last(count)(reader));
});

test("what somebody reads stays where it is while others write, and the newest stays in view", async (t) => {
  const writer = await project.someone("Di");
  const write = (body) => writer.mutation(anyApi.messages.send, { body });
  for (let line = 1; line <= 60; line++) await write(`line ${line}`);
  const [reading, following] = [await project.open(t), await project.open(t)];
  for (const window of [reading, following]) {
    await eventually(() => last(1)(window), same(["line 60"]));
  }
  const thread = reading.tab.getByLabel("Messages");
  const scrolled = () => thread.evaluate((rows) => Math.round(rows.scrollTop));
  await thread.hover();
  await reading.tab.mouse.wheel(0, -600);
  await eventually(async () => [await scrolled(), await sleep(100), await scrolled()], ([a, , b]) => {
    assert.ok(a < -300);
    assert.equal(a, b, "it still turns");
  });
  const place = () =>
    reading.tab.getByText("line 48").evaluate((row) => Math.round(row.getBoundingClientRect().y));
  const before = await place();

  for (const body of ["more", "and more", "and more than that"]) await write(body);
  for (const window of [reading, following]) {
    await eventually(() => last(1)(window), same(["and more than that"]));
  }

  assert.ok(before > 0, "it is in view");
  same(before)(await place());
  assert.ok(await isInView(following.tab.getByText("and more than that")));
  assert.ok(!(await isInView(reading.tab.getByText("and more than that"))));
});

test("a window that was offline sends what was written meanwhile, once, and catches up", async (t) => {
  const [ed, flo] = [await project.open(t, "Ed"), await project.open(t, "Flo")];
  await ed.say("before");
  await eventually(() => last(1)(flo), same(["before"]));

  await ed.unplug();
  await ed.banner.waitFor();
  await ed.say("written offline");
  await flo.say("meanwhile");
  await eventually(() => last(1)(flo), same(["meanwhile"]));
  const offline = await last(1)(ed);
  await ed.plugIn();
  await ed.banner.waitFor({ state: "detached" });

  same(["written offline"])(offline);
  for (const window of [ed, flo]) {
    await eventually(() => last(3)(window), same(["before", "meanwhile", "written offline"]));
  }
  same(await flo.shown())(await ed.shown());
});

test("who is signed in may write, is seen by others, stays so over a reload, and leaves", async (t) => {
  const [guest, gil] = [await project.open(t), await project.open(t, "Gil")];
  assert.equal(await guest.composer.count(), 0);
  await guest.tab.getByLabel("Your name").fill("H".repeat(41));
  await guest.tab.getByRole("button", { name: "Sign in" }).click();
  await guest.tab.getByText("A name has 1 to 40 letters.").waitFor();

  await guest.signIn("Hal");
  await guest.say("it is me");
  await eventually(() => last(1)(gil), same(["it is me"]));
  await eventually(() => gil.names(), (names) => assert.match(names, /Gil.*Hal/));
  await guest.tab.reload();
  await guest.composer.waitFor();
  await guest.say("still me");
  await eventually(() => last(1)(gil), same(["still me"]));
  const mine = await guest.tab.locator(".mine").count();
  await guest.signOut();

  assert.equal(mine, 2);
  await guest.composer.waitFor({ state: "detached" });
  await eventually(() => guest.tab.locator(".mine").count(), same(0));
  await eventually(() => gil.names(), (names) => assert.doesNotMatch(names, /Hal/));
  assert.equal((await unsigned(guest)).errorData, "Sign in to write.");
  await gil.composer.waitFor();
});

test("what is saved while somebody develops is on an open page without a reload", async (t) => {
  const kim = await project.open(t, undefined, await project.develop(t));
  await kim.tab.getByText(/^\d+ online$/).waitFor();
  await kim.tab.evaluate(() => (window.isTheSamePage = true));

  project.edit("backend/people.py", "len(tabs) - len(names)}", "len(tabs) + 1000}");
  await kim.tab.getByText(/^1\d\d\d online$/).waitFor();
  project.edit("src/Online.tsx", "} online", "} here");
  await kim.tab.getByText(/^1\d\d\d here$/).waitFor();

  assert.ok(await kim.tab.evaluate(() => window.isTheSamePage));
});

test("when the server is killed and started again every window is as it was, and goes on", async (t) => {
  const [ida, jo] = [await project.open(t, "Ida"), await project.open(t, "Jo")];
  await ida.say("before the end");
  await eventually(() => last(1)(jo), same(["before the end"]));
  const all = await jo.bodies();

  await project.engine.kill();
  for (const window of [ida, jo]) await window.banner.waitFor();
  await ida.say("into the silence");
  await eventually(() => last(1)(ida), same(["into the silence"]));
  const meanwhile = await jo.bodies();
  await project.restart();
  await eventually(() => jo.bodies(), same([...all, "into the silence"]));
  await jo.say("I can hear you");

  same(all)(meanwhile);
  for (const window of [ida, jo]) {
    await window.banner.waitFor({ state: "detached" });
    await eventually(() => window.bodies(), same([...all, "into the silence", "I can hear you"]));
  }
});

async function isInView(locator) {
  return await locator.evaluate((row) => {
    const { top, bottom } = row.getBoundingClientRect();
    const thread = row.closest("main").getBoundingClientRect();
    return top >= thread.top && bottom <= thread.bottom;
  });
}

/** What a page says to a message that is sent with no token. */
async function unsigned(window) {
  return await window.tab.evaluate(async () => {
    const body = { path: "messages:send", args: { body: "nobody" }, format: "json" };
    const headers = { "Content-Type": "application/json" };
    const answer = await fetch("/api/mutation", {
      method: "POST",
      headers,
      body: JSON.stringify(body),
    });
    return await answer.json();
  });
}
