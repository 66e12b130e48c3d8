// Draws the frames of masbook.lab.live_view.Picture: agents as nodes, messages flying between them, metrics as tiles.
// Everything is here: no library, no network. The colours are those of Okabe and Ito, told apart by most eyes.

const SVG = "http://www.w3.org/2000/svg";
const RING = 24; // up to this many agents stand in a ring, more in a grid
const METRICS = [
  ["sent", "sent", "messages sent, one for each recipient"],
  ["delivered", "delivered", "handed to an agent"],
  ["handled", "handled", "worked through"],
  ["in_flight", "waiting", "on their way, or in a mailbox"],
  ["mean_latency", "mean reply", "mean time from request to answer, in virtual seconds"],
  ["answered", "answered", "of the requests that were answered or timed out, the share without an error"],
  ["failed", "failed", "the handler raised an error"],
  ["timed_out", "timed out", "requests without a reply in time"],
  ["dropped", "dropped", "lost to a fault"],
  ["dead", "dead letters", "could not be delivered"],
];
const TROUBLE = new Set(["failed", "timed_out", "dropped", "dead"]);
const LEGEND = [
  ["state idle", "idle"], ["state busy", "busy"], ["state error", "crashed"], ["state offline", "offline"],
  ["flight request", "request"], ["flight reply", "reply"], ["flight tell", "tell"], ["flight publish", "publish"],
  ["flight broadcast", "broadcast"], ["flight lost", "lost"],
  ["flight heartbeat rare", "heartbeat"], ["state ill rare", "not healthy"], // named once they have been seen
];

function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function html(tag, className, ...children) {
  const node = document.createElement(tag);
  node.className = className;
  node.append(...children);
  return node;
}

// Where each agent stands, and its label: [x, y, radius, anchor, label x, label y, letters there is room for].
function places(count, width, hubs) {
  if (count > RING) return grid(count, width);
  const { height, spots } = ring(count - hubs.length, width);
  hubs.forEach((hub, i) => { // in the middle, or left and right of it
    const x = width / 2 + (hubs.length - 1) * (i ? 60 : -60);
    spots.splice(hub, 0, [x, height / 2, 20, "middle", 0, 36, 14]);
  });
  return { height, spots };
}

function ring(count, width) {
  const height = count <= 2 ? 200 : count <= 8 ? 330 : count <= 12 ? 430 : 500;
  const radius = count <= 12 ? 20 : 15;
  const [cx, cy, rx, ry] = [width / 2, height / 2, Math.max(70, width / 2 - 145), height / 2 - (count > 12 ? 88 : 60)];
  const spots = arc(count, rx, ry).map((angle, i) => {
    const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
    const [x, y] = [cx + rx * cos, cy + ry * sin];
    if (Math.abs(cos) < (count > 12 ? 0.6 : 0.2)) { // labels of close neighbours stand in two lines
      const away = radius + (count > 12 && i % 2 ? 28 : 0);
      return [x, y, radius, "middle", 0, sin < 0 ? -away - 21 : away + 16, 14];
    }
    const room = (cos < 0 ? x : width - x) - radius - 9; // to the edge; a letter takes 7.5
    return [x, y, radius, cos < 0 ? "end" : "start", Math.sign(cos) * (radius + 9), -1, Math.min(20, Math.floor(room / 7.5))];
  });
  return { height, spots };
}

// Angles at equal distances along an ellipse, beginning at the left for two agents, else at the top.
function arc(count, rx, ry) {
  const steps = 720, lengths = [0], start = count === 2 ? Math.PI : -Math.PI / 2;
  for (let i = 0; i < steps; i++) {
    const angle = start + (2 * Math.PI * (i + 0.5)) / steps;
    lengths.push(lengths[i] + Math.hypot(rx * Math.sin(angle), ry * Math.cos(angle)));
  }
  return Array.from({ length: count }, (_, k) => {
    const wanted = (lengths[steps] * k) / count;
    return start + (2 * Math.PI * lengths.findIndex((length) => length >= wanted - 1e-9)) / steps;
  });
}

function grid(count, width) {
  const labelled = count <= 60;
  const columns = Math.ceil(Math.sqrt(count * (labelled ? 1.5 : 2.5))), rows = Math.ceil(count / columns);
  const cell = width / columns, radius = Math.min(13, cell / 3.2), line = labelled ? 68 : cell;
  const spots = Array.from({ length: count }, (_, i) => [
    cell * ((i % columns) + 0.5), line * (Math.floor(i / columns) + 0.5), radius,
    labelled ? "middle" : "none", 0, radius + 14, Math.floor(cell / 7),
  ]);
  return { height: Math.max(160, rows * line + 10), spots };
}

function clipped(text, length) {
  return text.length > length ? text.slice(0, length - 1) + "…" : text;
}

function seconds(value, digits = value < 100 ? 2 : value < 1000 ? 1 : 0) {
  return value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

// A number as short as a tile is narrow.
function amount(name, value) {
  if (value === null || value === undefined) return "–";
  if (name === "answered") return `${Math.floor(100 * value)} %`; // 100 % means all of them
  if (value >= 1e5) return Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 }).format(value);
  return name === "mean_latency" ? `${seconds(value, value < 10 ? 2 : value < 100 ? 1 : 0)} s` : value.toLocaleString("en");
}

class Scene {
  constructor(root) {
    this.clock = html("span", "masbook-clock");
    this.legend = html("div", "masbook-legend", ...LEGEND.map(([kind, label]) =>
      html("span", "", html("i", kind), label)));
    this.edges = svg("g", { class: "edges" });
    this.nodes = svg("g", { class: "nodes" });
    this.flights = svg("g", { class: "flights" });
    this.empty = svg("text", { class: "empty", x: "50%", y: "50%", "text-anchor": "middle" });
    this.empty.textContent = "press Play, or Step for one event at a time";
    this.canvas = svg("svg", { class: "masbook-canvas", role: "img", "aria-label": "agents and messages" },
      this.edges, this.flights, this.nodes, this.empty);
    this.tiles = html("div", "masbook-metrics");
    this.values = {};
    for (const [name, label, meaning] of METRICS) {
      this.values[name] = html("b", `masbook-metric-${name}`);
      const tile = html("div", TROUBLE.has(name) ? "tile trouble" : "tile", this.values[name], html("span", "", label));
      tile.title = meaning;
      this.tiles.append(tile);
    }
    root.append(html("div", "masbook-top", this.clock, this.legend), this.canvas, this.tiles);
    this.root = root;
    this.names = null;
    this.serial = null;
  }

  get width() {
    return Math.max(300, this.root.clientWidth - 28);
  }

  draw(frame) {
    const agents = frame.agents ?? [];
    const hubs = [...(frame.hubs ?? [])].sort((a, b) => a - b);
    const names = [this.width, hubs, ...agents.map((agent) => agent[0])].join("\n");
    if (names !== this.names) this.arrange(agents, hubs, names);
    this.clock.replaceChildren(`${seconds(frame.time ?? 0)} s`);
    if (frame.expected) this.clock.append(html("small", "", ` of about ${seconds(frame.expected)} s`));
    this.canvas.dataset.time = frame.time ?? 0;
    this.canvas.dataset.serial = frame.serial ?? 0;
    agents.forEach((agent, i) => this.agent(i, agent));
    this.connect(frame.edges ?? []);
    for (const [name, , ] of METRICS) {
      const value = frame.metrics?.[name];
      this.values[name].textContent = amount(name, value);
      this.values[name].parentElement.classList.toggle("some", value > 0);
    }
    const first = this.serial === null; // a view that is shown late does not replay what has flown already
    if (frame.serial !== this.serial && !first) for (const flight of frame.flights ?? []) this.fly(flight);
    this.serial = frame.serial ?? 0;
  }

  arrange(agents, hubs, names) {
    this.names = names;
    const { height, spots } = places(agents.length, this.width, hubs);
    this.spots = spots;
    this.canvas.setAttribute("viewBox", `0 0 ${this.width} ${height}`);
    this.empty.style.display = agents.length ? "none" : "";
    this.drawn = agents.map(([name], i) => this.node(name, spots[i]));
    this.nodes.replaceChildren(...this.drawn.map((node) => node.group));
    this.canvas.classList.toggle("crowd", agents.length > RING);
    this.edges.replaceChildren();
    this.lines = new Map();
  }

  node(name, [x, y, radius, anchor, dx, dy, letters]) {
    const title = svg("title"), disc = svg("circle", { r: radius, class: "disc" });
    const waiting = svg("text", { class: "waiting", "text-anchor": "middle", dy: "0.36em" });
    const label = svg("text", { class: "name", "text-anchor": anchor, x: dx, y: dy });
    const work = svg("text", { class: "work", "text-anchor": anchor, x: dx, y: dy + 14 });
    label.textContent = clipped(name, letters);
    const group = svg("g", { transform: `translate(${x} ${y})` }, title,
      svg("circle", { r: radius + 5, class: "halo" }), disc, waiting,
      svg("circle", { r: radius / 3 + 1, cx: radius * 0.8, cy: -radius * 0.8, class: "ill" }));
    if (anchor !== "none") group.append(label, work);
    return { group, title, waiting, work, letters };
  }

  agent(i, [name, state, waiting, work, health]) {
    const node = this.drawn[i];
    node.group.setAttribute("class", `agent ${state} ${health}`);
    if (health) this.legend.classList.add("ill");
    node.group.dataset.name = name;
    node.waiting.textContent = waiting || (state === "error" ? "×" : "");
    const doing = state === "busy" ? work : state === "error" ? "crashed" : state === "offline" ? "offline" : health;
    node.work.textContent = clipped(doing, node.letters);
    node.title.textContent = `${name}: ${state}${work ? `, at work on ${work}` : ""}, ${waiting} waiting${health && `, ${health}`}`;
  }

  connect(edges) {
    for (const [a, b, count] of edges) {
      const key = `${a}-${b}`;
      if (!this.lines.has(key)) {
        const [[x1, y1], [x2, y2]] = [this.spots[a], this.spots[b]];
        const line = svg("line", { x1, y1, x2, y2 });
        this.lines.set(key, line);
        this.edges.append(line);
      }
      this.lines.get(key).style.strokeWidth = Math.min(4, 0.75 + Math.log10(count + 1));
    }
  }

  fly([from, to, style]) {
    if (this.flights.childElementCount > 120) return; // a crowd of dots says no more than a hundred do
    const [x1, y1] = this.spots[from], [x2, y2] = this.spots[to];
    const length = Math.hypot(x2 - x1, y2 - y1) || 1;
    const [ox, oy] = [(-(y2 - y1) / length) * 4, ((x2 - x1) / length) * 4]; // keep to the right of the line
    const lost = style === "lost";
    if (style === "heartbeat") this.legend.classList.add("heartbeat");
    const reach = lost ? 0.6 : 1;
    const at = (share) => `translate(${x1 + (x2 - x1) * share + ox}px, ${y1 + (y2 - y1) * share + oy}px)`;
    const dot = lost
      ? svg("path", { d: "M-5,-5 L5,5 M-5,5 L5,-5", class: "flight lost" })
      : svg("circle", { r: style === "heartbeat" ? 3 : 5, class: `flight ${style}` });
    this.flights.append(dot);
    const frames = lost
      ? [{ transform: at(0.1) }, { transform: at(reach), opacity: 1, offset: 0.5 }, { transform: at(reach), opacity: 0 }]
      : [{ transform: at(0) }, { transform: at(reach) }];
    dot.animate(frames, { duration: lost ? 1100 : 550, easing: "ease-in-out" }).onfinish = () => dot.remove();
  }
}

export default {
  render({ model, el }) {
    el.classList.add("masbook-live");
    const scene = new Scene(el);
    const draw = () => scene.draw(model.get("frame"));
    const resized = new ResizeObserver(draw); // also draws for the first time, once the width is known
    resized.observe(el);
    model.on("change:frame", draw);
    return () => {
      resized.disconnect();
      model.off("change:frame", draw);
    };
  },
};
