// Right as well: a front end of an application that has no schema.

import { useMutation, useQuery } from "convex/react";
import { api } from "../convex/open/api";
import type { Doc, Id } from "../convex/open/dataModel";

export function Room({ channel }: { channel: Id<"channels"> }) {
  const messages: Doc<"messages">[] | undefined = useQuery(api.messages.list, { channel });
  const send = useMutation(api.messages.send);
  return <p onClick={() => void send({ channel, body: messages?.[0].any.thing })}>{messages?.length}</p>;
}
