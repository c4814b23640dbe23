import "./style.css";
import { type Entry, listEntries, readVersion, sign } from "./api";

function element<T extends HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no #${id}`);
  return found as T;
}

function row(entry: Entry): HTMLLIElement {
  const item = document.createElement("li");
  const name = document.createElement("strong");
  name.textContent = entry.name;
  item.append(name, ` ${entry.message}`);
  return item;
}

function report(error: unknown): void {
  const problem = element("problem");
  problem.textContent = error instanceof Error ? error.message : String(error);
  problem.hidden = false;
}

async function refresh(): Promise<void> {
  const [entries, version] = await Promise.all([listEntries(), readVersion()]);
  element("entries").replaceChildren(...entries.map(row));
  element("version").textContent = version;
  element("problem").hidden = true;
}

element<HTMLFormElement>("sign").addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = event.currentTarget as HTMLFormElement;
  const values = new FormData(form);
  try {
    await sign({ name: String(values.get("name")), message: String(values.get("message")) });
    form.reset();
    await refresh();
  } catch (error) {
    report(error);
  }
});

refresh().catch(report);
