// New rows come as they are settled; the page without this script shows them when it is loaded.
const rows = document.getElementById("rows");
const live = document.getElementById("live");
const wanted = Object.fromEntries(new FormData(document.getElementById("filters")));
const MOST = 200;
const source = new EventSource(`/api/events?after=${rows.dataset.after}`);

source.addEventListener("open", () => { live.textContent = "Live."; });
source.addEventListener("error", () => {
  const over = source.readyState === EventSource.CLOSED;
  live.textContent = over ? "Sign in again: load this page anew." : "Connecting again ...";
});
source.addEventListener("message", (event) => {
  const row = JSON.parse(event.data);
  if (Object.entries(wanted).some(([name, value]) => value && String(row[name]) !== value)) return;
  if (document.getElementById(row.id)) return; // It ended while the page was made, and is in it.
  document.getElementById("none")?.remove();
  rows.prepend(line(row));
  while (rows.rows.length > MOST) rows.lastElementChild.remove();
});

function line(row) {
  const tr = document.createElement("tr");
  tr.id = row.id;
  tr.className = "new";
  const head = document.createElement("th");
  head.scope = "row";
  head.className = "time";
  const link = document.createElement("a");
  link.href = `/dashboard/requests/${encodeURIComponent(row.id)}${rows.dataset.kept}`;
  link.textContent = row.started_at.slice(0, 19).replace("T", " ");
  head.append(link);
  tr.append(head);
  for (const name of ["key_name", "model", "intensity", "outcome"]) tr.append(cell(row[name]));
  for (const name of ["input_tokens", "output_tokens", "duration_ms"]) {
    const td = cell(Number(row[name] ?? 0).toLocaleString("en-US"));
    td.className = "number";
    tr.append(td);
  }
  return tr;
}

function cell(text) {
  const td = document.createElement("td");
  td.textContent = text;
  return td;
}
