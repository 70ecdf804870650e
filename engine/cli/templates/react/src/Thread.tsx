import { usePaginatedQuery, useQuery } from "convex/react";
import { useEffect, useRef } from "react";

import { api } from "../convex/_generated/api";
import type { Doc } from "../convex/_generated/dataModel";
import { Avatar } from "./Avatar";
import { isPending } from "./Composer";

const PAGE = 30;
type Message = Doc<"messages">;

/** All messages, newest at the bottom; earlier ones come when somebody scrolls up to them. */
export function Thread() {
  const { results, status, loadMore } = usePaginatedQuery(
    api.messages.list,
    {},
    { initialNumItems: PAGE },
  );
  const me = useQuery(api.people.me);
  return (
    // Its rows run from the bottom up, so the browser keeps the newest in view, and what somebody
    // reads where it is.
    <main className="thread" tabIndex={0} aria-label="Messages">
      {results.map((message, at) => (
        <Row
          key={message._id}
          message={message}
          isMine={message.user === me?.user}
          isFirst={results[at + 1]?.user !== message.user}
        />
      ))}
      {status === "CanLoadMore" && <Earlier load={() => loadMore(PAGE)} />}
      {status.startsWith("Loading") && <p className="note">Loading …</p>}
      {status === "Exhausted" && (
        <p className="note">{results.length ? "This is the beginning." : "Nobody has said anything yet."}</p>
      )}
    </main>
  );
}

/** A button that presses itself when it is scrolled into view. */
function Earlier({ load }: { load: () => void }) {
  const button = useRef<HTMLButtonElement>(null);
  const newest = useRef(load);
  newest.current = load;
  useEffect(() => {
    const observer = new IntersectionObserver(
      (entries) => entries.some((entry) => entry.isIntersecting) && newest.current(),
    );
    observer.observe(button.current!);
    return () => observer.disconnect();
  }, []);
  return (
    <button className="note" ref={button} onClick={load}>
      Earlier messages
    </button>
  );
}

type RowProps = { message: Message; isMine: boolean; isFirst: boolean };

/** `isFirst` of those that one person said in a row. */
function Row({ message, isMine, isFirst }: RowProps) {
  const { _id, _creationTime, author, body } = message;
  const state = isPending(_id) ? "sending …" : time.format(_creationTime);
  return (
    <article
      className={`message ${isMine ? "mine" : ""} ${isFirst ? "first" : ""}`}
      data-id={_id}
      aria-busy={isPending(_id)}
    >
      {isFirst && !isMine && <Avatar name={author} />}
      {isFirst && !isMine && <strong>{author}</strong>}
      <p>
        {body} <time>{state}</time>
      </p>
    </article>
  );
}

const time = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
