// Identities through the official clients: refresh and expiry in mid-session, and administrators.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { api, bodies, Clients, freshName, sleep, until } from "./harness.mjs";
import { ADMIN_KEY, forged, ISSUER, Server, token } from "./server.mjs";

const server = new Server("auth");
before(() => server.start());
after(() => server.stop());

const BOB = { issuer: "i", subject: "bob", tokenIdentifier: "i|bob" };

/** Each identity that `client` shows, in order. */
const watched = (client) => {
  const seen = [];
  client.onUpdate(api.whoami, {}, (me) => seen.push(me?.subject ?? null));
  return seen;
};

/** Log in, and wait until it is confirmed; what the client was told and asked for since. */
const loggedIn = async (client, fetch) => {
  const story = { fetches: [], changes: [] };
  client.setAuth(
    async ({ forceRefreshToken }) => {
      story.fetches.push(forceRefreshToken);
      return fetch(forceRefreshToken, story);
    },
    (isAuthenticated) => story.changes.push(isAuthenticated),
  );
  await until(() => story.changes.length > 0, "the identity to be confirmed or given up", 20_000);
  return story;
};

test("a token that was kept is confirmed, and a fresh one follows on the same connection", async (t) => {
  const clients = new Clients(t, server);
  const client = clients.live();
  const seen = watched(client);

  const story = await loggedIn(client, () => token("ada"));
  await until(() => story.fetches.length === 2);
  await until(() => seen.at(-1) === "ada");
  await client.query(api.count, {});

  assert.deepEqual(story.fetches, [false, true]);
  assert.deepEqual(new Set(story.changes), new Set([true]));
  assert.equal(seen.filter((name) => name === "ada").length, 1);
  assert.equal(clients.wires.length, 1);
});

test("tokens are renewed before they run out, and nobody is shown in between", async (t) => {
  const clients = new Clients(t, server);
  const client = clients.live({ authRefreshTokenLeewaySeconds: 2 });
  const seen = watched(client);

  const story = await loggedIn(client, () => token("ada", { seconds: 4 }));
  await until(() => story.fetches.length >= 4, "two renewals", 20_000);

  assert.deepEqual(seen.filter((name) => name !== null), ["ada"]);
  assert.equal(clients.wires.length, 1);
  assert.deepEqual(clients.heard("AuthError"), []);
});

test("a token that ran out before it was shown is renewed", async (t) => {
  const clients = new Clients(t, server);
  const client = clients.live();
  const seen = watched(client);

  const story = await loggedIn(client, (isForced) => token("ada", { seconds: isForced ? 600 : -9 }));
  await until(() => seen.at(-1) === "ada");

  assert.ok(story.fetches.includes(true));
  assert.ok(story.changes.every((isAuthenticated) => isAuthenticated));
  assert.deepEqual(
    clients.heard("AuthError").map((error) => [error.baseVersion, error.authUpdateAttempted]),
    [[0, true]],
  );
});

test("who cannot renew in mid-session is nobody, and goes on as that", async (t) => {
  const clients = new Clients(t, server);
  const client = clients.live();
  const seen = watched(client);
  const now = Math.floor(Date.now() / 1000);
  const brief = token("ada", { iat: now - 10_000, exp: now + 2 });
  const channel = freshName();

  const story = await loggedIn(client, () => (Date.now() / 1000 < now + 2 ? brief : null));
  await until(() => seen.at(-1) === "ada");
  await sleep((now + 2.2) * 1000 - Date.now());
  await client.mutation(api.send, { channel, body: "as nobody" });
  await until(() => seen.at(-1) === null, "the identity to go", 20_000);

  assert.equal(story.changes.at(-1), false);
  assert.deepEqual(bodies(await client.query(api.list, { channel })), ["as nobody"]);
  const errors = clients.heard("AuthError").map((error) => error.authUpdateAttempted);
  assert.deepEqual(errors, [false]);
});

test("a bad token in mid-session takes the place of the good one, and of nobody else", async (t) => {
  const clients = new Clients(t, server);
  const client = clients.live();
  const beside = clients.live();
  const seen = watched(client);
  await loggedIn(client, () => token("ada"));
  await loggedIn(beside, () => token("bob"));
  await until(() => seen.at(-1) === "ada");

  const story = await loggedIn(client, () => forged("mallory"));
  await until(() => seen.at(-1) === null, "the identity to go", 20_000);

  assert.deepEqual(story.changes, [false]);
  assert.ok(!seen.includes("mallory"));
  assert.equal((await beside.query(api.whoami, {})).subject, "bob");
});

test("an identity outlives its connection, and is there before the queries", async (t) => {
  const clients = new Clients(t, server);
  const cable = await clients.cable();
  const client = clients.live({ url: cable.url });
  const seen = watched(client);
  await loggedIn(client, () => token("ada"));
  await until(() => seen.at(-1) === "ada");

  cable.cut();
  await until(() => clients.wires.length === 2, "a second connection", 20_000);
  const channel = freshName();
  await client.mutation(api.send, { channel, body: "still here" });

  const said = clients.wires[1].flatMap(({ said }) => (said ? [said.type] : []));
  assert.deepEqual(said.slice(0, 3), ["Connect", "Authenticate", "ModifyQuerySet"]);
  assert.ok(!seen.slice(seen.indexOf("ada")).includes(null));
});

test("an administrator acts as a user over both kinds of clients", async (t) => {
  const clients = new Clients(t, server);
  const client = clients.live();
  client.setAdminAuth(ADMIN_KEY, BOB);
  const http = clients.http();
  http.setAdminAuth(ADMIN_KEY, BOB);

  for (const each of [client, http]) {
    const me = await each.query(api.whoami, {});
    assert.deepEqual([me.subject, me.issuer, me.tokenIdentifier], ["bob", "i", "i|bob"]);
  }
  assert.equal(await client.query(api.secret, {}), "secret");
});

test("an admin key that is wrong by a letter is as none", async (t) => {
  const clients = new Clients(t, server);
  const client = clients.live();
  client.setAdminAuth(`${ADMIN_KEY}0`, BOB);

  const asked = client.query(api.secret, {}).then(
    (value) => ({ value }),
    (error) => ({ error }),
  );
  await until(() => clients.heard("AuthError").length > 0);
  const found = await Promise.race([asked, sleep(300)]);

  assert.equal(found?.value, undefined);
  assert.equal(clients.heard("AuthError")[0].authUpdateAttempted, true);
});

test("a token has the claims that it was given", async (t) => {
  const clients = new Clients(t, server);
  const claims = { name: "Ada", email_verified: true, org: { id: "o1" }, roles: ["reader"] };

  const me = await clients.http(token("ada", claims)).query(api.whoami, {});

  assert.deepEqual(me, {
    email_verified: true,
    issuer: ISSUER,
    name: "Ada",
    "org.id": "o1",
    roles: ["reader"],
    subject: "ada",
    tokenIdentifier: `${ISSUER}|ada`,
  });
});
