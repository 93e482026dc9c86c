// One prompt asked at every level at once; the answers are shown as they are written.
const at = (id) => document.getElementById(id);
const levels = [...document.querySelectorAll("[data-answer]")].map((one) => one.dataset.answer);
const settled = new Map(); // The rows that the live feed brought, by request.
let asking = null;
let feed = null;

if (at("ask")) {
  at("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    ask();
  });
  at("stop").addEventListener("click", () => asking?.abort());
  // Whoever comes back to this page by "Back" finds no key in it.
  addEventListener("pagehide", () => { at("provider-key").value = ""; });
}

async function ask() {
  asking?.abort();
  const mine = asking = new AbortController();
  at("said").textContent = "Asking ...";
  try {
    await listen();
  } catch (error) {
    at("said").textContent = error.message;
    return;
  }
  at("stop").disabled = false;
  const outputs = await Promise.all(levels.map((level) => oneLevel(level, mine.signal)));
  if (asking !== mine) return;
  at("stop").disabled = true;
  at("said").textContent = mine.signal.aborted ? "Stopped." : "All have answered.";
  compare(outputs);
}

// --- One level -----------------------------------------------------------------------------------

async function oneLevel(level, signal) {
  const pane = document.querySelector(`[data-answer="${level}"]`);
  const cells = [...document.querySelectorAll(`[data-figures="${level}"] td`)];
  pane.textContent = "";
  pane.classList.remove("bad");
  for (const cell of cells) cell.textContent = "";
  pane.setAttribute("aria-busy", "true");
  try {
    const id = await stream(level, signal, (text) => { pane.append(text); });
    return show(cells, await row(id, signal));
  } catch (error) {
    if (signal.aborted) return null;
    pane.classList.add("bad");
    const broke = error instanceof TypeError; // The browser's own words differ, and say less.
    pane.append(pane.textContent ? "\n\n" : "", broke ? "The answer broke off." : error.message);
    return null;
  } finally {
    pane.removeAttribute("aria-busy");
  }
}

async function stream(level, signal, write) {
  const texts = [["system", at("system").value], ["user", at("prompt").value]];
  const messages = texts.filter(([, content]) => content).map(([role, content]) => ({ role, content }));
  const answer = await fetch(`/api/keys/${encodeURIComponent(at("key").value)}/playground`, {
    method: "POST",
    signal,
    headers: {
      "Content-Type": "application/json",
      "X-Provider-Key": at("provider-key").value.trim(),
      "X-Mintoken-Intensity": level,
    },
    body: JSON.stringify({ model: at("model").value.trim(), messages, stream: true }),
  });
  if (answer.headers.get("Content-Type")?.startsWith("text/event-stream")) {
    for await (const data of events(answer.body)) {
      if (data === "[DONE]") continue;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new Error(chunk.error.message);
      write(chunk.choices?.[0]?.delta?.content ?? "");
    }
  } else {
    const document = await answer.json().catch(() => ({}));
    if (!answer.ok) throw new Error(document.error?.message ?? `The provider answered ${answer.status}.`);
    write(document.choices?.[0]?.message?.content ?? "");
  }
  return answer.headers.get("X-Mintoken-Request-Id");
}

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split(/\r?\n/);
    rest = lines.pop();
    for (const line of lines) {
      if (line.startsWith("data:")) yield line.slice(5).trim();
    }
  }
}

// --- Its figures: those of the usage row, as the live feed tells them ----------------------------

function listen() {
  if (feed?.readyState === EventSource.OPEN) return Promise.resolve();
  feed?.close();
  feed = new EventSource("/api/events");
  feed.addEventListener("message", (event) => {
    const one = JSON.parse(event.data);
    if (one.reason !== "playground") return;
    const tell = settled.get(one.id);
    settled.set(one.id, one);
    if (typeof tell === "function") tell(one);
  });
  return new Promise((resolve, reject) => {
    feed.addEventListener("begin", resolve, { once: true });
    feed.addEventListener("error", () => {
      if (feed.readyState === EventSource.CLOSED) reject(new Error("Sign in again: load this page anew."));
    });
  });
}

function row(id, signal) {
  return new Promise((resolve, reject) => {
    if (settled.has(id)) resolve(settled.get(id));
    else settled.set(id, resolve);
    signal.addEventListener("abort", () => reject(new Error("Stopped.")));
  });
}

function show(cells, found) {
  const price = found.cost_usd === null ? "no price" : `$${found.cost_usd.toPrecision(3)}`;
  const texts = [
    number(found.input_tokens), number(found.output_tokens), "", ms(found.first_byte_ms),
    ms(found.duration_ms), price,
  ];
  texts.forEach((text, place) => { cells[place].textContent = text; });
  return found.output_tokens;
}

function compare(outputs) {
  const [none] = outputs;
  levels.forEach((level, place) => {
    if (!none || outputs[place] === null || place === 0) return;
    const percent = Math.round((100 * outputs[place]) / none - 100);
    const cell = document.querySelector(`[data-figures="${level}"] td:nth-of-type(3)`);
    cell.textContent = `${percent > 0 ? "+" : ""}${percent} %`.replace("-", "\u2212");
  });
}

function number(value) {
  return value.toLocaleString("en-US");
}

function ms(value) {
  return value === null ? "" : `${number(value)} ms`;
}
