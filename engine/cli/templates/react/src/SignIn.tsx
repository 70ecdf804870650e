import { useState } from "react";

import { signIn } from "./auth";
import { reason } from "./Composer";

export function SignIn() {
  const [name, setName] = useState("");
  const [error, setError] = useState("");
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        setError("");
        signIn(name).catch((refused) => setError(reason(refused)));
      }}
    >
      <input
        aria-label="Your name"
        placeholder="Your name"
        autoComplete="off"
        value={name}
        onChange={(event) => setName(event.target.value)}
      />
      <button disabled={!name.trim()}>Sign in</button>
      <p>{error || "For development: any name is believed."}</p>
    </form>
  );
}
