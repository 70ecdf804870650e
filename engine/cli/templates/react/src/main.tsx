import { ConvexProviderWithAuth, ConvexReactClient } from "convex/react";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";

import { App } from "./App";
import { useAuth } from "./auth";
import "./style.css";

const client = new ConvexReactClient(location.origin);

createRoot(document.getElementById("root")!).render(
  <StrictMode>
    <ConvexProviderWithAuth client={client} useAuth={useAuth}>
      <App />
    </ConvexProviderWithAuth>
  </StrictMode>,
);
