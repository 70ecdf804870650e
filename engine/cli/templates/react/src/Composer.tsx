import { insertAtTop, useMutation } from "convex/react";
import { ConvexError } from "convex/values";
import { useState } from "react";

import { api } from "../convex/_generated/api";
import type { Id } from "../convex/_generated/dataModel";

const LETTERS_MAX = 2000;
const PENDING = "pending:";
let count = 0;

/** Whether a message is shown before the server has it. */
export const isPending = (id: Id<"messages">) => id.startsWith(PENDING);

export function Composer() {
  const [body, setBody] = useState("");
  const [error, setError] = useState("");
  const send = useSend();

  async function submit() {
    if (!body.trim()) return;
    setBody("");
    setError("");
    try {
      await send(body.trim());
    } catch (refused) {
      setBody((newer) => newer || body);
      setError(reason(refused));
    }
  }

  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        void submit();
      }}
    >
      <textarea
        aria-label="Message"
        placeholder="Message"
        rows={1}
        maxLength={LETTERS_MAX}
        value={body}
        onChange={(event) => setBody(event.target.value)}
        onKeyDown={(event) => {
          if (event.key !== "Enter" || event.shiftKey || event.nativeEvent.isComposing) return;
          event.preventDefault();
          void submit();
        }}
      />
      <button disabled={!body.trim()}>Send</button>
      {error && <p role="alert">{error}</p>}
    </form>
  );
}

/** Sends a message, which shows at once; what the server says of it takes its place. */
function useSend() {
  const send = useMutation(api.messages.send);
  return (body: string) => {
    const _id = `${PENDING}${++count}` as Id<"messages">;
    const _creationTime = Date.now();
    return send.withOptimisticUpdate((store) => {
      const me = store.getQuery(api.people.me, {});
      if (!me) return;
      insertAtTop({
        paginatedQuery: api.messages.list,
        localQueryStore: store,
        item: { _id, _creationTime, body, author: me.name, user: me.user },
      });
    })({ body });
  };
}

/** What to show of an error: what the function says, or that there was one. */
export function reason(error: unknown) {
  return error instanceof ConvexError ? String(error.data) : "That did not work. Try again.";
}
