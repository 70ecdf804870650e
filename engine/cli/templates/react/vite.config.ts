import react from "@vitejs/plugin-react";
import { defineConfig, loadEnv } from "vite";

// The page talks to where it came from, as it does in production: what begins with /api is the
// engine's. `headrace dev` writes where that is to .env.local.
export default defineConfig(({ mode }) => {
  const { VITE_CONVEX_URL } = loadEnv(mode, process.cwd());
  const proxy = { "/api": { target: VITE_CONVEX_URL || "http://127.0.0.1:3210", ws: true } };
  return { plugins: [react()], server: { proxy }, preview: { proxy } };
});
