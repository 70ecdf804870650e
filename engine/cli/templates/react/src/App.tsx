import { useConvexAuth, useConvexConnectionState } from "convex/react";

import { signOut } from "./auth";
import { Composer } from "./Composer";
import { Online } from "./Online";
import { SignIn } from "./SignIn";
import { Thread } from "./Thread";

export function App() {
  const { isAuthenticated, isLoading } = useConvexAuth();
  return (
    <div className="app">
      <header>
        <h1>{{name}}</h1>
        <Online />
        {isAuthenticated && (
          <button className="quiet" onClick={signOut}>
            Sign out
          </button>
        )}
      </header>
      <Connection />
      <Thread />
      <footer>{isLoading ? null : isAuthenticated ? <Composer /> : <SignIn />}</footer>
    </div>
  );
}

/** A line while there is no connection; the client goes on trying by itself. */
function Connection() {
  const { isWebSocketConnected, inflightMutations } = useConvexConnectionState();
  if (isWebSocketConnected) return null;
  return (
    <p className="connection" role="status">
      No connection. Trying again
      {inflightMutations > 0 ? "; what you wrote is sent then." : " …"}
    </p>
  );
}
