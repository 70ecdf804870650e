// Mistakes that the compiler has to find. Above each stands what it says of the line.

import { ConvexClient } from "convex/browser";
import { useAction, useMutation, usePaginatedQuery, useQuery } from "convex/react";
import type { IndexNames, NamedTableInfo } from "convex/server";
import { api } from "../convex/_generated/api";
import type { DataModel, Doc, Id } from "../convex/_generated/dataModel";

export function Room({ channel, user }: { channel: Id<"channels">; user: Id<"pets"> }) {
  // TS2554
  useQuery(api.messages.list);
  // TS2561
  useQuery(api.messages.list, { chanel: channel });
  // TS2322
  useQuery(api.messages.list, { channel: user });
  // TS2322
  useQuery(api.messages.list, { channel: "general" });
  // TS2551
  useQuery(api.messages.lst, { channel });
  // TS2345
  useQuery(api.messages.send, { channel, body: "x" });
  // TS2345
  useMutation(api.messages.list);
  // TS2339
  useMutation(api.messages.prune);
  // TS2345
  useAction(api.messages.send);
  // TS2322
  useQuery(api.messages.count, { n: 1 });
  // TS2345
  usePaginatedQuery(api.messages.list, { channel }, { initialNumItems: 10 });
  // TS2345
  usePaginatedQuery(api.messages.paged, {}, { initialNumItems: 10 });
  const messages = useQuery(api.messages.list, { channel });
  // TS18048
  messages.length;
  // TS2551
  messages?.[0].bdy;
  // TS2365
  messages?.[0] && messages[0].views + 1;
  // TS2532
  messages?.[0] && messages[0].edited + 1;
  // TS2322
  useMutation(api.messages.send).withOptimisticUpdate((store) => store.setQuery(api.messages.list, { channel }, [1]));
}

export async function kinds(client: ConvexClient, channel: Id<"channels">) {
  // TS2322
  await client.query(api.kinds.numbers, { n: 1n, x: 1, big: 1n, few: 1 });
  // TS2322
  await client.query(api.kinds.numbers, { n: 1, x: 1, big: 1, few: 1 });
  // TS2322
  await client.query(api.kinds.data, { blob: "bytes" });
  // TS2322
  await client.query(api.kinds.choice, { one: "b", colour: "red" });
  // TS2741
  await client.query(api.kinds.nested, { points: [{ x: 1 }], by_name: {} });
  // TS2322
  await client.query(api.kinds.nested, { points: [], by_name: { a: 1 } });
  // TS2322
  await client.query(api.kinds.records, { scores: { [channel]: "one" } });
  // TS2322
  await client.query(api.kinds.literals, { exactly: 6n });
  // TS2322
  await client.query(api.kinds.odd, { some: "one" });
  // TS2322
  await client.query(api.kinds.elsewhere, { user: channel });
  // TS2339
  (await client.query(api.kinds.pet, {}))?.lives;
  // TS2345
  await client.action(api.kinds.work, { seconds: 1 });
  // TS2322
  await client.mutation(api.teams.members.addOne, { name: null });
}

// TS2344
export type Nothing = Doc<"nothing">;
// TS2344
export type NoId = Id<"nothing">;
// TS2322
export const index: IndexNames<NamedTableInfo<DataModel, "messages">> = "by_likes";
// TS2820
export const path: NamedTableInfo<DataModel, "messages">["fieldPaths"] = "author.nme";
