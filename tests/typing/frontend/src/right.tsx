// What a front end may write: the compiler has nothing to say of any of it.

import { ConvexClient } from "convex/browser";
import { optimisticallyUpdateValueInPaginatedQuery, useAction, useMutation, usePaginatedQuery, useQuery } from "convex/react";
import type {
  DocumentByName,
  FunctionArgs,
  FunctionReturnType,
  GenericDataModel,
  IndexNames,
  NamedIndex,
  NamedTableInfo,
  SearchIndexNames,
  VectorIndexNames,
} from "convex/server";
import { api } from "../convex/_generated/api";
import type { DataModel, Doc, Id, TableNames } from "../convex/_generated/dataModel";

/** Whether two types are the very same, `any` included. */
type Same<A, B> =
  (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
function proven<_T extends true>(): void {}

export function Room({ channel }: { channel: Id<"channels"> }) {
  const messages = useQuery(api.messages.list, { channel });
  const count = useQuery(api.messages.count);
  const skipped = useQuery(api.messages.list, count === 0 ? { channel } : "skip");
  const more = usePaginatedQuery(api.messages.paged, { channel }, { initialNumItems: 10 });
  const work = useAction(api.kinds.work);
  const anything = useAction(api.kinds.anything);
  const send = useMutation(api.messages.send).withOptimisticUpdate((store, { body }) => {
    const shown = store.getQuery(api.messages.list, { channel });
    if (shown === undefined) return;
    const first: Doc<"messages"> = {
      _id: "new" as Id<"messages">,
      _creationTime: Date.now(),
      channel,
      author: { name: "ada" },
      body,
      likes: 1,
      views: 2n,
      tags: [],
      attachment: new ArrayBuffer(3),
      counts: { a: 1 },
      meta: { any: ["thing"] },
    };
    store.setQuery(api.messages.list, { channel }, [first, ...shown]);
    optimisticallyUpdateValueInPaginatedQuery(store, api.messages.paged, { channel }, (one) => ({
      ...one,
      likes: one.likes + 1,
    }));
  });
  proven<Same<typeof messages, Doc<"messages">[] | undefined>>();
  proven<Same<typeof skipped, Doc<"messages">[] | undefined>>();
  proven<Same<typeof count, number | undefined>>();
  proven<Same<(typeof more.results)[number], Doc<"messages">>>();
  return (
    <form
      onSubmit={async () => {
        const sent = await send({ channel, body: "hello", tags: null });
        proven<Same<typeof sent, Id<"messages">>>();
        const worked: string = await work({ channel });
        await work({ channel, seconds: 2.5 });
        await anything({ of: { any: "kind", at: [worked] } });
        await anything();
      }}
    >
      {messages?.map((one) => (
        <p key={one._id} title={one.author.channel}>
          {one.body.toUpperCase()} {one.likes + 1} {String(one.views * 2n)} {one.attachment?.byteLength}
          {one.edited?.toFixed()} {one.counts["a"]?.toFixed()} {one.meta.at.any.depth}
        </p>
      ))}
      <button onClick={() => more.status === "CanLoadMore" && more.loadMore(10)}>{count}</button>
    </form>
  );
}

export async function kinds(client: ConvexClient, channel: Id<"channels">) {
  const big = await client.query(api.kinds.numbers, { n: 1, x: 2.5, big: 3n, few: 4 });
  proven<Same<typeof big, bigint>>();
  const bytes = await client.query(api.kinds.data, { blob: new Uint8Array([1]).buffer });
  proven<Same<typeof bytes, ArrayBuffer>>();
  const colour = await client.query(api.kinds.choice, { one: 1, colour: "red" });
  proven<Same<typeof colour, "red" | "blue" | null>>();
  const point = { x: 1, y: 2, label: null };
  const nested = await client.query(api.kinds.nested, { points: [point], by_name: { a: [point] } });
  proven<Same<typeof nested, { x: number; y: number; label?: string | null }>>();
  await client.query(api.kinds.records, { scores: { [channel]: 1 } });
  const none = await client.query(api.kinds.literals, { exactly: 5n });
  proven<Same<typeof none, never[]>>();
  const odd = await client.query(api.kinds.odd, { some: 1, other: 2 });
  proven<Same<typeof odd, null>>();
  const names = await client.query(api.kinds.odd_names, {});
  proven<Same<(typeof names)["not-a-name"], string>>();
  const pet = await client.query(api.kinds.pet, {});
  const lives = pet?.kind === "cat" ? pet.lives : pet?.tricks.length;
  proven<Same<typeof lives, number | undefined>>();
  const isPet: Doc<"pets"> | null = pet;
  const user = "x" as FunctionArgs<typeof api.kinds.elsewhere>["user"];
  const elsewhere = await client.query(api.kinds.elsewhere, { user });
  proven<Same<typeof elsewhere, any>>();
  const needed = await client.query(api["2fa"].needed, {});
  const members = await client.query(api.teams.members, { team: "a" });
  const defaults = await client.query(api.teams.default, {});
  await client.mutation(api.teams.members.addOne, { name: String(needed) });
  proven<Same<typeof members, typeof defaults>>();
  proven<Same<FunctionReturnType<typeof api.teams.default>, string[]>>();
  client.onUpdate(api.messages.list, { channel }, (messages) => messages[0]?.body.trim());
  return { isPet };
}

proven<DataModel extends GenericDataModel ? true : false>();
proven<Same<TableNames, "anything" | "channels" | "messages" | "pets" | "vectors">>();
proven<Same<DocumentByName<DataModel, "channels">["name"], string>>();
proven<Same<Doc<"anything">, any>>();
type Messages = NamedTableInfo<DataModel, "messages">;
proven<Same<IndexNames<Messages>, "by_id" | "by_creation_time" | "by_channel">>();
proven<Same<NamedIndex<Messages, "by_channel">, ["channel", "author.name", "_creationTime"]>>();
proven<Same<SearchIndexNames<Messages>, "search_body">>();
proven<Same<VectorIndexNames<NamedTableInfo<DataModel, "vectors">>, "by_embedding">>();
const paths: Messages["fieldPaths"][] = ["_id", "author.name", "counts.any", "meta.a.b"];
export const job: Id<"_scheduled_functions"> | undefined = paths.length ? undefined : undefined;
