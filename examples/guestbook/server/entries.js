// Signatures live in memory: the newest MAX_ENTRIES, gone with the process.

const MAX_ENTRIES = 500;
const MAX_NAME_CHARS = 40;
const MAX_MESSAGE_CHARS = 280;

const entries = [];

export function list() {
  return entries;
}

/** Adds a signature and returns it; throws a TypeError that says what is wrong with it. */
export function add(given) {
  const entry = {
    name: text("name", given?.name, MAX_NAME_CHARS),
    message: text("message", given?.message, MAX_MESSAGE_CHARS),
  };
  entries.unshift(entry);
  entries.length = Math.min(entries.length, MAX_ENTRIES);
  return entry;
}

function text(what, value, limit) {
  const trimmed = typeof value === "string" ? value.trim() : "";
  if (trimmed === "") throw new TypeError(`${what} is missing`);
  if (trimmed.length > limit) throw new TypeError(`${what} is longer than ${limit} characters`);
  return trimmed;
}
