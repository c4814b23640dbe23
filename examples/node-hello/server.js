import { createServer } from "node:http";
import { VERSION } from "./version.js";

const greeting = process.env.GREETING ?? "hello";

const server = createServer((request, response) => {
  response.setHeader("content-type", "text/plain; charset=utf-8");
  response.end(request.url === "/health" ? "ok\n" : `${greeting} from ${VERSION}\n`);
});

server.listen(Number(process.env.PORT ?? 3000), () => console.log(`node-hello ${VERSION} on port ${server.address().port}`));
process.on("SIGTERM", () => server.close(() => process.exit(0)));
