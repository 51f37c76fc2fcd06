// Draws debug/status, every second. What it says comes from the mesh and is not trusted: every text goes into the page
// as textContent, and the page's policy (see pilot_agent/status/page.py) refuses to make markup of a string.
const ASK_EVERY_MS = 1000;
const ANSWER_WITHIN_MS = 5000;
const HISTORY_MS = 5 * 60 * 1000;
const GAP_MS = 6500; // longer than the slowest answer: what lies between two samples further apart is not known
const NOTHING = "–";
const UNREADABLE = "The agent's answers can't be read";

const at = (id) => document.getElementById(id);

// ---- words ----

const isSaid = (value) => value !== null && value !== undefined && value !== "";
const number = (value, digits = 0) => value.toLocaleString("en", { maximumFractionDigits: digits });
const clock = (time) => time.toLocaleTimeString("en-GB", { hour12: false });
const mebibytes = (bytes) => number(bytes / 2 ** 20, 1) + " MiB";

function duration(seconds) {
  if (!isSaid(seconds)) return "";
  if (seconds < 60) return number(seconds, seconds < 10 ? 1 : 0) + "\u00a0s"; // a number stays with its unit
  const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const first = units.findIndex(([, size]) => seconds >= size);
  const [[name, size], [smaller, smallerSize] = []] = units.slice(first, first + 2);
  const parts = [Math.floor(seconds / size), name];
  if (smaller) parts.push(Math.floor((seconds % size) / smallerSize), smaller);
  return parts.join("\u00a0");
}

function size(bytes) {
  if (!isSaid(bytes)) return "";
  if (bytes < 1024) return number(bytes) + " B";
  return bytes < 2 ** 20 ? number(bytes / 1024, 1) + " KiB" : mebibytes(bytes);
}

function rate(perSecond) {
  return number(perSecond, perSecond < 10 ? 1 : 0);
}

function plain(value) {
  if (!isSaid(value)) return NOTHING;
  if (typeof value === "number") return number(value, 3);
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

function since(gate) {
  const time = gate.since ? new Date(gate.since) : null;
  const when = time && !Number.isNaN(time.getTime()) ? clock(time) : "";
  const length = duration(gate.since_seconds);
  return when && length ? `${when} (${length})` : when || length || NOTHING;
}

function restarts(counts) {
  const said = Object.entries(counts || {}).filter(([, count]) => count > 0);
  return said.map(([reason, count]) => `${reason}: ${number(count)}`).join(", ") || "none";
}

function lastExit(exit) {
  if (!exit) return "none";
  const how = isSaid(exit.signal) ? `signal ${exit.signal}` : isSaid(exit.code) ? `code ${exit.code}` : "";
  const after = isSaid(exit.uptime_seconds) ? `after ${duration(exit.uptime_seconds)}` : "";
  return [[how, after].filter(Boolean).join(" "), exit.reason].filter(isSaid).join(": ");
}

function older(epochs) {
  return (epochs || []).map((each) => `${each.epoch} (pid ${each.pid})`).join(", ") || "none";
}

// ---- the page: only what changed is touched, so that a selection or a screen reader is not disturbed ----

function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function writeAll(texts) {
  for (const [id, text] of Object.entries(texts)) write(at(id), isSaid(text) ? plain(text) : NOTHING);
}

function fit(parent, count, tag) {
  while (parent.children.length > count) parent.lastElementChild.remove();
  while (parent.children.length < count) parent.append(document.createElement(tag));
  return [...parent.children];
}

function list(element, texts) {
  fit(element, texts.length, "li").forEach((item, index) => write(item, plain(texts[index])));
}

// `rows`: lists of texts, one per column; the first is the row's heading.
function fill(table, rows) {
  const columns = table.tHead.rows[0].cells;
  fit(table.tBodies[0], rows.length, "tr").forEach((row, index) => {
    if (!row.cells.length) {
      for (let column = 0; column < rows[index].length; column += 1) {
        row.append(document.createElement(column ? "td" : "th"));
      }
      row.cells[0].scope = "row";
    }
    rows[index].forEach((text, column) => {
      write(row.cells[column], text);
      row.cells[column].classList.toggle("number", columns[column].classList.contains("number"));
    });
  });
}

function fillOrSayNone(id, rows) {
  at(id).hidden = !rows.length;
  at(`${id}-none`).hidden = Boolean(rows.length);
  fill(at(id), rows);
}

// ---- the parts ----

function drawReadiness(status) {
  document.body.dataset.state = status.ready ? "ready" : "not-ready";
  write(at("ready"), status.ready ? "Ready" : "Not ready");
  write(at("reason"), status.ready ? "" : status.reason || "no reason was given");
  drawTitle(status.ready ? "Ready" : "Not ready", status.agent.id);
  drawIcon(status.ready ? "#1a8a45" : "#c62828");
}

function drawTitle(state, id) {
  document.title = [state, id, "pilot-agent"].filter(isSaid).join(" · ");
}

function drawIcon(colour) {
  const icon = document.querySelector("link[rel=icon]");
  if (icon.dataset.colour === colour) return;
  icon.dataset.colour = colour;
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 32;
  const brush = canvas.getContext("2d");
  brush.fillStyle = colour;
  brush.arc(16, 16, 13, 0, 2 * Math.PI);
  brush.fill();
  icon.href = canvas.toDataURL();
}

function drawAgent(agent) {
  write(at("agent-version"), plain(agent.version));
  writeAll({
    "agent-id": agent.id,
    "agent-cluster": agent.cluster,
    "agent-role": agent.role,
    "agent-mode": agent.mode,
    "agent-state": agent.state,
    "agent-pid": isSaid(agent.pid) ? String(agent.pid) : "",
    "agent-uptime": duration(agent.uptime_seconds),
  });
}

function drawGates(gates) {
  fit(at("gates").tBodies[0], gates.length, "tr").forEach((row, index) => {
    const gate = gates[index];
    if (!row.cells.length) row.append(at("gate").content.cloneNode(true));
    const [state, reason] = row.cells[1].children;
    write(row.cells[0], plain(gate.name));
    write(state, plain(gate.state));
    state.className = gate.state === "open" ? "open" : "closed";
    write(reason, gate.reason || "");
    write(row.cells[2], since(gate));
    row.cells[2].title = gate.since || "";
  });
}

function drawEnvoy(envoy) {
  at("envoy").hidden = !envoy;
  at("envoy-none").hidden = Boolean(envoy);
  if (!envoy) return;
  writeAll({
    "envoy-epoch": envoy.epoch,
    "envoy-pid": isSaid(envoy.pid) ? String(envoy.pid) : "",
    "envoy-uptime": duration(envoy.uptime_seconds),
    "envoy-restarts": restarts(envoy.restarts),
    "envoy-exit": lastExit(envoy.last_exit),
    "envoy-older": older(envoy.older_epochs),
    "envoy-version": envoy.version,
    "envoy-concurrency": envoy.concurrency,
    "envoy-binary": envoy.binary,
  });
}

function drawConfig(config) {
  writeAll({
    "config-accepted": config.accepted,
    "config-refused": config.refused,
    "config-refusal": config.refusal || "none",
    "config-services": config.services,
  });
  const broken = config.broken_files || [];
  list(at("config-broken"), broken.length ? broken : ["none"]);
  at("config-refusal").classList.toggle("is-bad", Boolean(config.refusal));
  at("config-broken").classList.toggle("is-bad", Boolean(broken.length));
}

// Which facts a certificate has is the agent's affair: each becomes a column.
function drawCertificates(certificates) {
  const facts = certificates.map((each) => (each !== null && typeof each === "object" ? each : { name: each }));
  const names = [...new Set(facts.flatMap(Object.keys))];
  const table = at("certificates");
  const head = table.tHead.rows[0];
  if (head.cells.length !== names.length) fit(table.tBodies[0], 0, "tr"); // rows are made as wide as the head
  fit(head, names.length, "th").forEach((cell, index) => {
    cell.scope = "col";
    write(cell, names[index].replaceAll("_", " "));
  });
  fillOrSayNone("certificates", facts.map((each) => names.map((name) => plain(each[name]))));
}

function drawErrors(errors) {
  at("errors-none").hidden = Boolean(errors.length);
  list(at("errors"), [...errors].reverse());
}

function drawScrapes(scrapes) {
  fillOrSayNone("scrapes", scrapes.map((each) => [
    plain(each.source),
    isSaid(each.seconds) ? number(each.seconds * 1000, 1) + " ms" : NOTHING,
    size(each.bytes) || NOTHING,
    plain(each.failures),
    each.last_error || "none",
  ]));
  [...at("scrapes").tBodies[0].rows].forEach((row, index) => {
    row.cells[4].classList.toggle("is-bad", Boolean(scrapes[index].last_error));
  });
}

// ---- the charts ----

// Of the last five minutes, oldest first: time in ms, requests per second, memory in bytes; null: not known.
const samples = [];
let lastTotal = null; // {time, total}: of the sample before

function requestsPerSecond(time, total) {
  const before = lastTotal;
  lastTotal = isSaid(total) ? { time, total } : null;
  // A total that went back is that of a new Envoy, and what the old one did since the last sample is not known.
  if (!lastTotal || !before || total < before.total || time - before.time > GAP_MS) return null;
  return ((total - before.total) * 1000) / Math.max(time - before.time, 1);
}

function remember(status) {
  const time = performance.now();
  const memory = status.memory || {};
  samples.push({
    time,
    requests: requestsPerSecond(time, status.traffic ? status.traffic.requests_total : null),
    envoy: memory.envoy_bytes ?? null,
    agent: memory.agent_bytes ?? null,
  });
  while (samples[0].time < time - HISTORY_MS) samples.shift();
}

// The smallest of 1, 2, 4, 6, 8, 10, 20 ... times `unit` that is not below `value`.
function roundUp(value, unit) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value / unit, 1)));
  return [1, 2, 4, 6, 8, 10].map((step) => step * power * unit).find((limit) => limit >= value);
}

// Runs of samples without a gap, as [x, y] in the 300 x 100 of the drawing: a second is as wide as 1.
function runs(series, limit) {
  const now = samples[samples.length - 1].time;
  const found = [];
  let before = null;
  for (const sample of samples) {
    if (sample[series] !== null) {
      if (before === null || sample.time - before > GAP_MS) found.push([]);
      found[found.length - 1].push([300 - (now - sample.time) / 1000, 100 - (100 * sample[series]) / limit]);
    }
    before = sample[series] === null ? null : sample.time;
  }
  return found;
}

class Chart {
  // `series`: names in the order of the lines in the page; `unit`: what the scale is a round multiple of.
  constructor(id, series, unit, say) {
    this.series = series;
    this.unit = unit;
    this.say = say;
    this.plot = at(id).querySelector(".plot");
    this.pointer = null;
    this.plot.addEventListener("pointermove", (event) => this.point(event.clientX));
    this.plot.addEventListener("pointerleave", () => this.point(null));
  }

  draw() {
    const values = samples.flatMap((sample) => this.series.map((name) => sample[name] ?? 0));
    const limit = roundUp(Math.max(...values), this.unit);
    write(this.plot.querySelector(".top"), this.say(limit));
    write(this.plot.querySelector(".middle"), this.say(limit / 2));
    this.series.forEach((name, index) => {
      const lines = runs(name, limit).map((run) => run.map(([x, y]) => `${x.toFixed(2)} ${y.toFixed(2)}`));
      const under = (line) => `M${line[0].split(" ")[0]} 100L${line.join("L")}V100Z`;
      // "L" back to itself: a run of one sample is a dot.
      this.line(".curve", index, lines.map((line) => `M${line[0]}L${line.join("L")}`));
      if (index === 0) this.line(".area", index, lines.map(under));
    });
    this.read();
  }

  line(kind, index, paths) {
    this.plot.querySelectorAll(kind)[index].setAttribute("d", paths.join(""));
  }

  point(clientX) {
    this.pointer = clientX;
    this.read();
  }

  // What the sample under the pointer says.
  read() {
    const box = this.plot.querySelector("svg").getBoundingClientRect();
    const x = this.pointer === null ? NaN : (300 * (this.pointer - box.left)) / box.width;
    const now = samples.length ? samples[samples.length - 1].time : 0;
    const isNear = (sample) => Math.abs(300 - (now - sample.time) / 1000 - x) < 1.5;
    const sample = samples.findLast(isNear);
    const readout = this.plot.querySelector(".readout");
    readout.hidden = !sample;
    this.plot.querySelector(".cursor").setAttribute("d", sample ? `M${x} 0V100` : "");
    if (!sample) return;
    const values = this.series.map((name) => (sample[name] === null ? NOTHING : this.say(sample[name])));
    write(readout, `${Math.round((now - sample.time) / 1000)} s ago: ${values.join(" / ")}`);
  }
}

const requestsChart = new Chart("requests", ["requests"], 1, rate);
const memoryChart = new Chart("memory", ["envoy", "agent"], 2 ** 20, mebibytes);

function drawCharts(status) {
  remember(status);
  requestsChart.draw();
  memoryChart.draw();
  const { requests, envoy, agent } = samples[samples.length - 1];
  write(at("requests-now"), requests === null ? NOTHING : rate(requests));
  write(at("memory-envoy"), envoy === null ? NOTHING : mebibytes(envoy));
  write(at("memory-agent"), agent === null ? NOTHING : mebibytes(agent));
  const { requests_total: total, connections_active: connections } = status.traffic || {};
  const inAll = isSaid(total) ? `${number(total)} in all` : "";
  const open = isSaid(connections) ? `connections open: ${number(connections)}` : "";
  write(at("requests-more"), [inAll, open].filter(Boolean).join(" · "));
}

// ---- asking ----

function draw(status) {
  drawReadiness(status);
  drawAgent(status.agent);
  drawGates(status.gates || []);
  drawEnvoy(status.envoy);
  drawConfig(status.config || {});
  fillOrSayNone("listeners", (status.listeners || []).map((each) => [plain(each.name), plain(each.address)]));
  drawCertificates(status.certificates || []);
  drawErrors(status.errors || []);
  drawScrapes(status.scrapes || []);
  drawCharts(status);
  write(at("asked"), `As of ${clock(new Date())}, asked every second while this tab is in sight.`);
}

let silentSince = null; // Date of the first question without an answer
let timer = null;
let question = null; // AbortController of the one that is under way

function fallSilent(asked, what) {
  silentSince ??= asked;
  write(at("silence"), `${what} since ${clock(silentSince)}. What you see is older.`);
  at("silence").hidden = false;
  document.body.classList.add("is-old");
  drawTitle("No answer", at("agent-id").textContent);
  drawIcon("#8a8f98");
}

function hear() {
  silentSince = null;
  at("silence").hidden = true;
  document.body.classList.remove("is-old");
}

async function read(signal) {
  const answer = await fetch("debug/status", { cache: "no-store", credentials: "omit", redirect: "error", signal });
  if (!answer.ok) return [null, `The agent answers with an error (${answer.status})`];
  return [await answer.json(), UNREADABLE];
}

async function ask() {
  const asked = new Date();
  const mine = (question = new AbortController());
  const alarm = setTimeout(() => mine.abort(), ANSWER_WITHIN_MS);
  let status = null;
  let refusal = "The agent does not answer";
  try {
    [status, refusal] = await read(mine.signal);
  } catch (error) {
    if (error instanceof SyntaxError) refusal = UNREADABLE;
  }
  clearTimeout(alarm);
  if (question !== mine) return; // given up when the tab was hidden: says nothing about the agent
  question = null;
  if (status) {
    try {
      draw(status);
      hear();
    } catch (error) {
      console.error(error);
      fallSilent(asked, "The agent's answers can't be shown");
    }
  } else {
    fallSilent(asked, refusal);
  }
  timer = setTimeout(ask, ASK_EVERY_MS);
}

function pause() {
  clearTimeout(timer);
  if (question) question.abort();
  question = null;
}

document.addEventListener("visibilitychange", () => {
  pause();
  if (!document.hidden) ask();
});
if (!document.hidden) ask();
