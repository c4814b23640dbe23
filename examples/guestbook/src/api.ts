export interface Entry {
  name: string;
  message: string;
}

async function json<T>(path: string, options?: RequestInit): Promise<T> {
  const answer = await fetch(path, options);
  if (!answer.ok) throw new Error(`${path} answered ${answer.status}`);
  return answer.json();
}

export function listEntries(): Promise<Entry[]> {
  return json("/api/entries");
}

export async function readVersion(): Promise<string> {
  const { version } = await json<{ version: string }>("/api/version");
  return version;
}

export async function sign(entry: Entry): Promise<void> {
  await json("/api/entries", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(entry),
  });
}
