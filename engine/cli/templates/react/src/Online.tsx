import { useConvex, useConvexAuth, useConvexConnectionState, useQuery } from "convex/react";
import { useEffect } from "react";

import { api } from "../convex/_generated/api";
import { Avatar } from "./Avatar";

const AGAIN_MS = 10_000;
const NAMES_SHOWN = 4;
const key = Math.random().toString(36).slice(2); // of this window

/** Who has the page open. */
export function Online() {
  usePresence();
  const online = useQuery(api.people.online);
  if (online === undefined) return <p className="online" />;
  const { names, guests } = online;
  return (
    <p className="online" title={names.join(", ")}>
      {names.slice(0, NAMES_SHOWN).map((name) => (
        <Avatar key={name} name={name} />
      ))}
      <span>{names.length + guests} online</span>
    </p>
  );
}

/** Says that this window is here, again and again, and that it closes. */
function usePresence() {
  const client = useConvex();
  const { isLoading, isAuthenticated } = useConvexAuth();
  const { isWebSocketConnected } = useConvexConnectionState();
  const isReady = isWebSocketConnected && !isLoading;
  useEffect(() => {
    if (!isReady) return;
    const here = () => void client.mutation(api.people.here, { key });
    const gone = () => void client.mutation(api.people.gone, { key });
    here();
    const timer = setInterval(here, AGAIN_MS);
    addEventListener("pagehide", gone);
    return () => {
      clearInterval(timer);
      removeEventListener("pagehide", gone);
    };
  }, [client, isReady, isAuthenticated]);
}
