import { createServer } from "node:http";
import { add, list } from "./entries.js";
import { VERSION } from "./version.js";

const MAX_BODY_BYTES = 4096;

const routes = {
  "GET /api/health": () => ({ status: 200, body: { ok: true } }),
  "GET /api/version": () => ({ status: 200, body: { version: VERSION } }),
  "GET /api/entries": () => ({ status: 200, body: list() }),
  "POST /api/entries": async (request) => ({ status: 201, body: add(await readJson(request)) }),
};

async function readJson(request) {
  let text = "";
  for await (const chunk of request.setEncoding("utf8")) {
    text += chunk;
    if (text.length > MAX_BODY_BYTES) throw new TypeError(`the body is over ${MAX_BODY_BYTES} bytes`);
  }
  try {
    return JSON.parse(text);
  } catch {
    throw new TypeError("the body is not JSON");
  }
}

async function answer(request) {
  const path = request.url.split("?", 1)[0];
  const route = routes[`${request.method} ${path}`];
  if (!route) return { status: 404, body: { error: "there is nothing here" } };
  try {
    return await route(request);
  } catch (error) {
    if (error instanceof TypeError) return { status: 400, body: { error: error.message } };
    console.error(error);
    return { status: 500, body: { error: "that went wrong" } };
  }
}

const server = createServer(async (request, response) => {
  const { status, body } = await answer(request);
  response.writeHead(status, { "content-type": "application/json", "cache-control": "no-store" });
  response.end(JSON.stringify(body));
});

server.listen(Number(process.env.PORT ?? 3000), () => console.log(`guestbook ${VERSION} on port ${server.address().port}`));
process.on("SIGTERM", () => server.close(() => process.exit(0)));
