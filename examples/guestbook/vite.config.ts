import { defineConfig } from "vite";

// In development the page and the API are two servers; `npm start` runs the API.
export default defineConfig({
  server: { proxy: { "/api": "http://127.0.0.1:3000" } },
});
