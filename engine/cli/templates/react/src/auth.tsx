// FOR DEVELOPMENT ONLY: asks backend/dev_issuer.py for tokens, which believes everybody.
//
// A real provider brings its own hook for `ConvexProviderWithAuth` and its own way to sign in and
// out; nothing but this file knows that there was another.
import { ConvexHttpClient } from "convex/browser";
import { useCallback, useSyncExternalStore } from "react";

import { api } from "../convex/_generated/api";

type Session = { name: string; token: string };

// Of this window, so that another one can be somebody else; it outlives a reload.
const KEY = "session";
const issuer = new ConvexHttpClient(location.origin);
const listeners = new Set<() => void>();
let session: Session | null = JSON.parse(sessionStorage.getItem(KEY) ?? "null");

function become(next: Session | null) {
  session = next;
  if (next) sessionStorage.setItem(KEY, JSON.stringify(next));
  else sessionStorage.removeItem(KEY);
  for (const listener of listeners) listener();
}

function subscribe(listener: () => void) {
  listeners.add(listener);
  return () => void listeners.delete(listener);
}

export async function signIn(name: string) {
  become({ name, token: await issuer.action(api.dev_issuer.sign_in, { name }) });
}

export function signOut() {
  become(null);
}

/** What `ConvexProviderWithAuth` asks: whether somebody is signed in, and for their token. */
export function useAuth() {
  const isAuthenticated = useSyncExternalStore(subscribe, () => session !== null);
  const fetchAccessToken = useCallback(
    async ({ forceRefreshToken }: { forceRefreshToken: boolean }) => {
      // The old one expires, or was refused.
      if (session && forceRefreshToken) await signIn(session.name).catch(signOut);
      return session?.token ?? null;
    },
    [],
  );
  return { isLoading: false, isAuthenticated, fetchAccessToken };
}
