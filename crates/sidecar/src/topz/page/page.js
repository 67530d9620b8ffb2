// The live page: asks for the latest look once a second and draws what has changed. Text from processes goes into the
// page as text only, never as markup. No library, no build.
"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const SVG = "http://www.w3.org/2000/svg";
  const COLORS = 8;

  // ---- state -------------------------------------------------------------------------------------------------
  let shown = null; // the snapshot in the table
  let series = null; // the plots: {at, short_lived, lines: [{name, cpu_percent, memory_bytes}]}
  let pinned = null; // Unix seconds of the past that is shown, or null when live
  let lastLook = 0;
  let failures = 0;
  let selected = null; // {pid}
  let one = null; // series of the selected process
  let onlyContainer = null;
  let sortKey = "cpu";
  let descending = true;
  let grouped = true;
  let tree = false;
  const colors = new Map();

  // ---- words -------------------------------------------------------------------------------------------------
  const STATES = {
    R: "running", S: "sleeping", D: "waiting for I/O, not to be disturbed", Z: "ended, its parent hasn't asked for it yet",
    T: "stopped", t: "stopped by a debugger", I: "idle kernel thread", X: "ending", P: "parked", W: "waking",
  };
  const size = (bytes) => {
    if (bytes === null || bytes === undefined) return "–";
    const units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let unit = 0;
    while (bytes >= 1000 && unit < units.length - 1) { bytes /= 1024; unit++; }
    return `${bytes < 10 && unit > 0 ? bytes.toFixed(1) : Math.round(bytes)} ${units[unit]}`;
  };
  const percent = (value) => (value === null || value === undefined ? "–" : value >= 100 ? value.toFixed(0) : value.toFixed(1));
  const span = (seconds) => {
    const s = Math.max(0, seconds);
    if (s < 60) return `${Math.floor(s)}s`;
    if (s < 3600) return `${Math.floor(s / 60)}m${String(Math.floor(s % 60)).padStart(2, "0")}s`;
    if (s < 86400) return `${Math.floor(s / 3600)}h${String(Math.floor((s % 3600) / 60)).padStart(2, "0")}m`;
    return `${Math.floor(s / 86400)}d${String(Math.floor((s % 86400) / 3600)).padStart(2, "0")}h`;
  };
  const cpuTime = (seconds) => (seconds < 60 ? `${seconds.toFixed(2)}s` : span(seconds));
  const clock = (at) => new Date(at * 1000).toLocaleTimeString([], { hour12: false });
  const plural = (count, word, words) => `${count} ${count === 1 ? word : words}`;
  const busy = (row) => (row.cpu_percent ?? 0) + (row.short_lived_cpu_percent ?? 0);
  const color = (name) => {
    if (name.startsWith("(")) return `var(--c${COLORS})`;
    if (!colors.has(name)) colors.set(name, colors.size);
    return `var(--c${Math.min(colors.get(name), COLORS)})`;
  };
  // Containers by name; what is none of them, such as "(pod)", last.
  const byName = (a, b) => a.startsWith("(") - b.startsWith("(") || (a < b ? -1 : a > b ? 1 : 0);
  const put = (node, text) => { if (node.textContent !== text) node.textContent = text; };
  const make = (tag, text, name) => {
    const node = document.createElement(tag);
    if (text !== undefined) node.textContent = text;
    if (name) node.className = name;
    return node;
  };

  // ---- asking ------------------------------------------------------------------------------------------------
  const get = async (path) => {
    const answer = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(5000) });
    if (!answer.ok) throw new Refused((await answer.text()).trim());
    return answer.json();
  };
  class Refused extends Error {}

  const loadHistory = async () => {
    series = await get("api/history");
    series.lines.forEach((line) => color(line.name));
  };

  const append = (snapshot) => {
    const count = series.at.length;
    series.at.push(snapshot.at);
    series.short_lived.push(snapshot.short_lived ?? 0);
    for (const container of snapshot.containers) {
      let line = series.lines.find((known) => known.name === container.name);
      if (!line) {
        line = { name: container.name, cpu_percent: Array(count).fill(null), memory_bytes: Array(count).fill(null) };
        series.lines.push(line);
        series.lines.sort((a, b) => byName(a.name, b.name));
      }
      line.cpu_percent[count] = container.cpu_percent;
      line.memory_bytes[count] = container.memory_bytes;
    }
    const oldest = snapshot.at - snapshot.history.seconds_max;
    const drop = Math.max(series.at.findIndex((at) => at >= oldest), 0);
    for (const column of [series.at, series.short_lived]) column.splice(0, drop);
    for (const line of series.lines) {
      for (const column of [line.cpu_percent, line.memory_bytes]) {
        if (column.length === count) column.push(null);
        column.splice(0, drop);
      }
    }
    series.lines = series.lines.filter((line) => line.memory_bytes.some((value) => value !== null));
    series.history = snapshot.history;
  };

  const tick = async () => {
    try {
      const live = await get(pinned === null ? "api/processes" : "api/processes?limit=0");
      if (failures > 2 || live.look < lastLook) {
        notice(live.look < lastLook ? "topz was restarted: its history starts again." : "topz answers again.", 6000);
      }
      const gap = live.look < lastLook || !series || live.look > lastLook + 3 || failures > 0;
      failures = 0;
      if (gap) await loadHistory();
      else if (live.look > lastLook) append(live);
      lastLook = live.look;
      if (pinned === null) {
        shown = live;
        draw();
      } else {
        status("past", "past");
        drawPlots();
      }
      drawContainers(pinned === null ? live : shown);
      if (selected) await refreshDetail();
    } catch (error) {
      failures++;
      if (failures > 1) {
        status("gone", "not answering");
        notice(error instanceof Refused ? error.message : "topz doesn't answer; trying again every second.");
      }
    }
  };

  const loop = async () => {
    const began = performance.now();
    if (!document.hidden) await tick();
    setTimeout(loop, Math.max(100, 1000 - (performance.now() - began)));
  };

  let noticeTimer = 0;
  const notice = (text, ms) => {
    put($("notice"), text ?? "");
    $("notice").hidden = !text;
    clearTimeout(noticeTimer);
    if (ms) noticeTimer = setTimeout(() => notice(null), ms);
  };
  const status = (state, text) => {
    $("status").dataset.state = state;
    put($("status"), text);
  };

  // ---- the past ----------------------------------------------------------------------------------------------
  const pin = async (at) => {
    try {
      const then = await get(`api/processes?at=${at.toFixed(3)}`);
      pinned = then.at;
      shown = then;
      put($("past-text"), `As it was at ${clock(then.at)}, ${span(then.age_seconds)} ago.`);
      $("past").hidden = false;
      draw();
      drawContainers(then);
    } catch (error) {
      notice(error.message, 5000);
    }
  };
  const unpin = () => {
    if (pinned === null) return;
    pinned = null;
    $("past").hidden = true;
    tick();
  };

  // ---- plots -------------------------------------------------------------------------------------------------
  const MEASURES = {
    cpu: { field: "cpu_percent", show: (value) => `${percent(value)} %`, axis: (value) => `${value} %`, least: 10 },
    memory: { field: "memory_bytes", show: size, axis: size, least: 8 << 20 },
  };
  const niceTop = (value, measure) => {
    if (measure === "cpu") {
      const step = 10 ** Math.floor(Math.log10(value));
      return [1, 2, 2.5, 5, 10].map((part) => part * step).find((top) => top >= value);
    }
    let top = 1 << 20;
    while (top < value) top *= 2;
    return top * 0.75 >= value ? top * 0.75 : top;
  };

  class Plot {
    constructor(box, source, labels) {
      this.box = box;
      this.source = source;
      this.measure = MEASURES[box.dataset.measure];
      this.output = box.querySelector("output");
      this.svg = document.createElementNS(SVG, "svg");
      this.svg.setAttribute("tabindex", "0");
      this.svg.setAttribute("role", "img");
      this.svg.setAttribute("aria-label", `${labels}. Left and right arrows move through time, Enter shows the processes of that moment.`);
      box.append(this.svg);
      this.areas = new Map();
      this.rules = [0, 1, 2].map(() => this.add("line", "rule"));
      this.ticks = [0, 1, 2, 3, 4].map(() => this.add("text"));
      this.cursor = this.add("line", "cursor");
      this.pin = this.add("line", "pin");
      this.hover = null;
      this.svg.addEventListener("pointermove", (event) => this.point(event));
      this.svg.addEventListener("pointerleave", () => this.move(null));
      this.svg.addEventListener("click", (event) => { this.point(event); this.choose(); });
      this.svg.addEventListener("keydown", (event) => this.key(event));
      this.svg.addEventListener("blur", () => this.move(null));
    }
    add(tag, name) {
      const node = document.createElementNS(SVG, tag);
      if (name) node.setAttribute("class", name);
      this.svg.append(node);
      return node;
    }
    point(event) {
      const data = this.source();
      if (!data || !data.at.length) return;
      const box = this.svg.getBoundingClientRect();
      const at = this.from + ((event.clientX - box.left) / box.width) * (this.to - this.from);
      let best = 0;
      for (let i = 0; i < data.at.length; i++) if (Math.abs(data.at[i] - at) < Math.abs(data.at[best] - at)) best = i;
      this.move(data.at[best]);
    }
    move(at) {
      cursorAt = at;
      drawPlots();
    }
    choose() {
      if (cursorAt !== null) pin(cursorAt);
    }
    key(event) {
      const data = this.source();
      if (!data || !data.at.length) return;
      const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -30, PageDown: 30 }[event.key];
      if (step) {
        const from = cursorAt === null ? data.at.length - 1 : data.at.indexOf(cursorAt);
        this.move(data.at[Math.min(Math.max((from < 0 ? data.at.length - 1 : from) + step, 0), data.at.length - 1)]);
      } else if (event.key === "Enter") this.choose();
      else return;
      event.preventDefault();
    }
    draw() {
      const data = this.source();
      if (!data || !data.at.length) return;
      const { field, show, axis, least } = this.measure;
      const width = this.svg.clientWidth || 600;
      const height = this.svg.clientHeight || 150;
      const bottom = height - 16;
      const top = 8;
      this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
      this.to = data.at[data.at.length - 1];
      // A short history is not stretched over the whole width at once: two minutes at least.
      this.from = Math.min(data.at[0], this.to - 120);
      const x = (at) => ((at - this.from) / (this.to - this.from)) * width;
      const sums = data.at.map((_, i) => data.lines.reduce((sum, line) => sum + (line[field][i] ?? 0), 0));
      const scale = niceTop(Math.max(least, ...sums), this.box.dataset.measure);
      const y = (value) => bottom - (value / scale) * (bottom - top);
      let floor = data.at.map(() => 0);
      const names = new Set();
      for (const line of data.lines) {
        names.add(line.name);
        const ceiling = floor.map((value, i) => value + (line[field][i] ?? 0));
        const up = ceiling.map((value, i) => `${x(data.at[i]).toFixed(1)} ${y(value).toFixed(1)}`);
        const down = floor.map((value, i) => `${x(data.at[i]).toFixed(1)} ${y(value).toFixed(1)}`).reverse();
        let area = this.areas.get(line.name);
        if (!area) {
          area = document.createElementNS(SVG, "path");
          this.svg.insertBefore(area, this.ticks[0]);
          this.areas.set(line.name, area);
        }
        area.setAttribute("d", `M${up.join("L")}L${down.join("L")}Z`);
        area.setAttribute("fill", data.plain ? "var(--c0)" : color(line.name));
        area.dataset.line = line.name;
        floor = ceiling;
      }
      for (const [name, area] of this.areas) if (!names.has(name)) { area.remove(); this.areas.delete(name); }
      this.rules.forEach((rule, i) => {
        const level = y((scale * i) / 2).toFixed(1);
        for (const [key, value] of [["x1", 0], ["x2", width], ["y1", level], ["y2", level]]) rule.setAttribute(key, value);
      });
      const label = (node, px, py, anchor, text) => {
        node.setAttribute("x", px);
        node.setAttribute("y", py);
        node.setAttribute("text-anchor", anchor);
        put(node, text);
      };
      label(this.ticks[0], 2, y(scale) + 11, "start", axis(scale));
      label(this.ticks[1], 2, y(scale / 2) - 3, "start", axis(scale / 2));
      label(this.ticks[2], 0, height - 3, "start", `−${span(this.to - this.from)}`);
      label(this.ticks[3], width / 2, height - 3, "middle", `−${span((this.to - this.from) / 2)}`);
      label(this.ticks[4], width, height - 3, "end", pinned === null ? "now" : "latest");
      const vertical = (node, at) => {
        node.style.display = at === null || at < this.from ? "none" : "";
        if (at === null) return;
        for (const [key, value] of [["x1", x(at)], ["x2", x(at)], ["y1", top], ["y2", bottom]]) node.setAttribute(key, value);
      };
      vertical(this.cursor, cursorAt);
      vertical(this.pin, pinned);
      const at = cursorAt ?? pinned;
      let index = data.at.length - 1;
      if (at !== null) data.at.forEach((moment, i) => { if (Math.abs(moment - at) < Math.abs(data.at[index] - at)) index = i; });
      put(this.output, at === null ? show(sums[index]) : `${show(sums[index])} at ${clock(data.at[index])}`);
      this.index = index;
    }
  }
  let cursorAt = null;
  const plots = [
    new Plot($("plot-cpu"), () => series, "CPU by container over the last minutes"),
    new Plot($("plot-memory"), () => series, "Memory by container over the last minutes"),
  ];
  const plotsOfOne = [
    new Plot($("plot-one-cpu"), () => one, "CPU of the process"),
    new Plot($("plot-one-memory"), () => one, "Memory of the process"),
  ];
  const drawPlots = () => {
    if (!series) return;
    plots.forEach((plot) => plot.draw());
    if (one && !$("detail").hidden) plotsOfOne.forEach((plot) => plot.draw());
    const index = plots[0].index;
    const legend = $("legend");
    while (legend.children.length > series.lines.length) legend.lastChild.remove();
    series.lines.forEach((line, i) => {
      let item = legend.children[i];
      if (!item) {
        item = make("li");
        item.append(make("span", "", "key"), make("span"), make("output"));
        legend.append(item);
      }
      item.children[0].style.background = color(line.name);
      // One that is not there at this moment is in the plots only.
      item.hidden = line.memory_bytes[index] === null;
      put(item.children[1], line.name);
      put(item.children[2], `${percent(line.cpu_percent[index])} % · ${size(line.memory_bytes[index])}`);
    });
    const { history } = series;
    const moment = series.short_lived[index];
    const parts = [
      `${span(history.seconds)} of history in ${size(history.bytes)} of ${size(history.bytes_max)}`,
      history.cut_by_memory ? `shorter than the ${span(history.seconds_max)} asked for: memory is short (--history-memory)` : null,
      moment ? `${plural(moment, "process or thread", "processes or threads")} came and went in the second before ${clock(series.at[index])}` : null,
      "click a plot to see the processes of that moment",
    ];
    put($("history"), parts.filter(Boolean).join(" · "));
  };

  // ---- containers --------------------------------------------------------------------------------------------
  const drawContainers = (snapshot) => {
    const body = $("containers").tBodies[0];
    let [limited, waits] = [false, false];
    const names = new Set(snapshot.containers.map((container) => container.name));
    for (const row of [...body.rows]) if (!names.has(row.dataset.container)) row.remove();
    snapshot.containers.forEach((container, i) => {
      let row = [...body.rows].find((known) => known.dataset.container === container.name);
      if (!row) {
        row = make("tr");
        row.dataset.container = container.name;
        for (const name of ["", "num", "num", "", "num mid", "num wide", "num", "wide"]) row.append(make("td", undefined, name));
        const key = make("span", "", "key");
        key.style.background = color(container.name);
        const button = make("button", container.name);
        button.type = "button";
        button.title = "Show the processes of this container only";
        button.addEventListener("click", () => {
          onlyContainer = onlyContainer === container.name ? null : container.name;
          if (shown) draw();
          drawContainers(snapshot);
        });
        row.cells[0].append(key, button);
      }
      if (body.rows[i] !== row) body.insertBefore(row, body.rows[i] ?? null);
      row.querySelector("button").setAttribute("aria-pressed", String(onlyContainer === container.name));
      const cells = row.cells;
      put(cells[1], `${percent(container.cpu_percent)} %`);
      put(cells[2], size(container.memory_bytes));
      const group = container.cgroup ?? {};
      const used = group.memory_working_set_bytes ?? group.memory_bytes;
      if (group.memory_limit_bytes && used !== undefined) {
        let meter = cells[3].querySelector("meter");
        if (!meter) {
          meter = make("meter");
          meter.low = 0.75;
          meter.high = 0.9;
          meter.optimum = 0;
          cells[3].replaceChildren(meter, make("span"));
        }
        meter.value = used / group.memory_limit_bytes;
        cells[3].title = `${size(used)} of ${size(group.memory_limit_bytes)}`;
        put(cells[3].lastChild, ` ${size(used)} of ${size(group.memory_limit_bytes)}`);
      } else put(cells[3], "–");
      put(cells[4], String(container.processes));
      put(cells[5], String(container.threads));
      put(cells[6], container.restarts === undefined ? "–" : String(container.restarts));
      const waiting = [
        group.oom_kills ? plural(group.oom_kills, "kill for memory", "kills for memory") : null,
        group.throttled_seconds ? `throttled ${span(group.throttled_seconds)}` : null,
        group.cpu_pressure_percent ? `CPU ${percent(group.cpu_pressure_percent)} %` : null,
        group.memory_pressure_percent ? `memory ${percent(group.memory_pressure_percent)} %` : null,
        group.io_pressure_percent ? `I/O ${percent(group.io_pressure_percent)} %` : null,
      ].filter(Boolean);
      put(cells[7], waiting.join(", ") || "–");
      limited ||= cells[3].textContent !== "–";
      waits ||= waiting.length > 0;
    });
    // Columns that nobody has anything in are left out.
    $("containers").classList.toggle("no-limit", !limited);
    $("containers").classList.toggle("no-waiting", !waits);
  };

  // ---- processes ---------------------------------------------------------------------------------------------
  const KEYS = {
    pid: (row) => row.pid, user: (row) => row.user, state: (row) => row.state, cpu: busy,
    memory: (row) => row.memory_bytes, threads: (row) => row.threads, time: (row) => row.cpu_seconds,
    started: (row) => row.started, command: (row) => row.command.toLowerCase(),
  };
  // Numbers are wanted biggest first, names and ids from the start.
  const FIRST_DESCENDING = { cpu: true, memory: true, threads: true, time: true, started: true };

  const order = (rows, key) => {
    const value = KEYS[key];
    const sign = descending ? -1 : 1;
    return rows.sort((a, b) => {
      const [left, right] = [value(a), value(b)];
      return (left < right ? -1 : left > right ? 1 : 0) * sign || a.pid - b.pid;
    });
  };

  // Depth first, siblings in the chosen order. A child whose parent is not among the rows is a root.
  const asTree = (rows) => {
    const byPid = new Map(rows.map((row) => [row.pid, row]));
    const children = new Map();
    const roots = [];
    for (const row of order(rows, sortKey)) {
      if (row.ppid !== row.pid && byPid.has(row.ppid)) children.set(row.ppid, [...(children.get(row.ppid) ?? []), row]);
      else roots.push(row);
    }
    const out = [];
    const walk = (row, stem, last, depth) => {
      out.push({ row, branch: depth === 0 ? "" : stem + (last ? "└ " : "├ ") });
      const below = children.get(row.pid) ?? [];
      const next = depth === 0 ? "" : stem + (last ? "  " : "│ ");
      if (depth < 40) below.forEach((child, i) => walk(child, next, i === below.length - 1, depth + 1));
    };
    roots.forEach((row) => walk(row, "", true, 0));
    return out;
  };

  const arrange = () => {
    const words = $("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
    const wanted = (row) => {
      if (onlyContainer !== null && row.container !== onlyContainer) return false;
      const text = `${row.pid} ${row.user} ${row.container} ${row.command} ${row.name}`.toLowerCase();
      return words.every((word) => text.includes(word));
    };
    const rows = shown.processes.filter(wanted);
    const list = (part) => (tree ? asTree(part) : order(part, sortKey).map((row) => ({ row, branch: "" })));
    if (!grouped) return [rows.length, list(rows)];
    const groups = new Map();
    for (const row of rows) groups.set(row.container, [...(groups.get(row.container) ?? []), row]);
    const out = [];
    for (const name of [...groups.keys()].sort(byName)) {
      out.push({ group: name, rows: groups.get(name) });
      out.push(...list(groups.get(name)));
    }
    return [rows.length, out];
  };

  const rowNodes = new Map();
  const MAX_ROWS = 2000;
  const nodeOf = (item) => {
    const key = item.group !== undefined ? `group ${item.group}` : `${item.row.pid} ${item.row.start_ticks}`;
    let node = rowNodes.get(key);
    if (node) return [key, node];
    node = make("tr");
    if (item.group !== undefined) {
      node.className = "group";
      node.dataset.group = item.group;
      const head = make("th");
      head.scope = "rowgroup";
      const mark = make("span", "", "key");
      mark.style.background = color(item.group);
      head.append(mark, make("span", item.group), make("span", "", "muted"));
      node.append(head);
    } else {
      node.dataset.pid = item.row.pid;
      node.tabIndex = -1;
      for (const name of ["num", "wide", "", "num load", "num", "num wide", "num wide", "num mid", "command"]) node.append(make("td", undefined, name));
      node.cells[3].append(make("span", "", "short"), make("span"));
      node.cells[8].append(make("span", "", "branch"), make("span", "", "dir"), make("span"));
      if (drawnOnce) node.classList.add("new");
    }
    rowNodes.set(key, node);
    return [key, node];
  };
  let drawnOnce = false;
  let columns = 9; // that are not left out on a narrow screen

  const fill = (node, item) => {
    if (item.group !== undefined) {
      const cpu = item.rows.reduce((sum, row) => sum + busy(row), 0);
      const memory = item.rows.reduce((sum, row) => sum + row.memory_bytes, 0);
      node.cells[0].colSpan = columns;
      put(node.cells[0].lastChild, `${plural(item.rows.length, "process", "processes")} · ${percent(cpu)} % · ${size(memory)}`);
      return;
    }
    const { row, branch } = item;
    const cells = node.cells;
    put(cells[0], String(row.pid));
    put(cells[1], row.user);
    put(cells[2], row.state);
    cells[2].title = STATES[row.state] ?? "";
    const short = row.short_lived_cpu_percent ?? 0;
    put(cells[3].children[0], short > 0 ? `short ${percent(short)}` : "");
    cells[3].title = short > 0 ? `${percent(short)} of it was spent by its children that came and went between two looks` : "";
    put(cells[3].children[1], row.cpu_percent === null ? "–" : percent(busy(row)));
    cells[3].style.setProperty("--load", String(Math.min(busy(row) / 100, 1)));
    put(cells[4], size(row.memory_bytes));
    put(cells[5], String(row.threads));
    put(cells[6], cpuTime(row.cpu_seconds));
    put(cells[7], span(shown.at - row.started));
    cells[7].title = new Date(row.started * 1000).toLocaleString();
    put(cells[8].children[0], branch);
    const [dir] = /^\/(?:[^ ]*\/)?(?=[^ /]+)/.exec(row.command) ?? [""];
    put(cells[8].children[1], dir);
    put(cells[8].children[2], row.command.slice(dir.length));
    cells[8].title = row.command;
    const state = `S-${row.state}`;
    if (!node.classList.contains(state)) {
      node.classList.remove(...[...node.classList].filter((name) => name.startsWith("S-")));
      node.classList.add(state);
    }
    node.setAttribute("aria-selected", String(selected !== null && selected.pid === row.pid));
  };

  // What is looked at is in the address, so that it survives a reload and can be passed on.
  const remember = () => {
    const view = new URLSearchParams();
    if (sortKey !== "cpu" || !descending) view.set("sort", (descending ? "-" : "") + sortKey);
    if (!grouped) view.set("group", "no");
    if (tree) view.set("tree", "yes");
    if ($("filter").value) view.set("filter", $("filter").value);
    if (onlyContainer !== null) view.set("container", onlyContainer);
    if (selected) view.set("pid", selected.pid);
    const hash = view.toString();
    if (hash !== location.hash.slice(1)) history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
  };
  const recall = () => {
    const view = new URLSearchParams(location.hash.slice(1));
    const sort = view.get("sort") ?? "-cpu";
    const key = sort.replace(/^-/, "");
    if (key in KEYS) [sortKey, descending] = [key, sort.startsWith("-")];
    grouped = view.get("group") !== "no";
    tree = view.get("tree") === "yes";
    $("group").setAttribute("aria-pressed", String(grouped));
    $("tree").setAttribute("aria-pressed", String(tree));
    $("filter").value = view.get("filter") ?? "";
    onlyContainer = view.get("container");
    wantedPid = Number(view.get("pid")) || null;
  };
  let wantedPid = null;

  const draw = () => {
    if (!shown) return;
    if (wantedPid !== null) {
      const pid = wantedPid;
      wantedPid = null;
      select(pid);
    }
    remember();
    if (pinned === null) status("live", "live"); else status("past", "past");
    put($("pod"), shown.pod);
    document.title = `${shown.pod || "podkit"} topz`;
    const stats = [
      plural(shown.total, "process", "processes"), plural(shown.threads, "thread", "threads"),
      `CPU ${percent(shown.cpu_percent)} %`, size(shown.memory_bytes), clock(shown.at),
      shown.skipped ? `${shown.skipped} more not watched (--max-processes)` : null,
    ];
    put($("summary"), stats.filter(Boolean).join(" · "));
    $("summary").dataset.look = shown.look;
    columns = [...$("processes").tHead.rows[0].cells].filter((cell) => cell.offsetWidth > 0).length;
    const [count, items] = arrange();
    const body = $("processes").tBodies[0];
    const keep = new Set();
    let at = 0;
    for (const item of items.slice(0, MAX_ROWS)) {
      const [key, node] = nodeOf(item);
      fill(node, item);
      keep.add(key);
      if (body.rows[at] !== node) body.insertBefore(node, body.rows[at] ?? null);
      at++;
    }
    for (const [key, node] of rowNodes) if (!keep.has(key)) { node.remove(); rowNodes.delete(key); }
    drawnOnce = true;
    if (!body.querySelector("tr[tabindex='0']")) body.querySelector("tr[data-pid]")?.setAttribute("tabindex", "0");
    put($("count"), count === shown.total ? String(count) : `${count} of ${shown.total}`);
    const notes = [
      shown.alone ? "topz sees only itself: set shareProcessNamespace: true in the pod to see the others." : null,
      count === 0 ? "No process matches." : null,
      items.length > MAX_ROWS ? `The first ${MAX_ROWS} rows are shown; filter to see others.` : null,
    ].filter(Boolean);
    put($("empty"), notes.join(" "));
    $("empty").hidden = notes.length === 0;
    for (const head of $("processes").tHead.rows[0].cells) {
      if (head.dataset.key === sortKey) head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    }
    drawPlots();
  };

  // ---- one process -------------------------------------------------------------------------------------------
  const select = (pid) => {
    const row = shown?.processes.find((known) => known.pid === pid);
    if (!row) return;
    selected = { pid };
    one = null;
    document.body.classList.add("detailed");
    $("detail").hidden = false;
    put($("detail-title"), `${row.name} · ${pid}`);
    put($("detail-command"), row.command);
    $("detail-facts").replaceChildren();
    $("detail-files").replaceChildren();
    put($("detail-files-title"), "");
    draw();
    refreshDetail();
  };
  const deselect = () => {
    const row = selected && $("processes").querySelector(`tr[data-pid="${selected.pid}"]`);
    selected = null;
    one = null;
    $("detail").hidden = true;
    document.body.classList.remove("detailed");
    if (shown) draw();
    row?.focus();
  };
  const facts = (list) => {
    const known = list.filter(([, value]) => value !== undefined);
    const nodes = known.flatMap(([name, value]) => {
      const why = value !== null && typeof value === "object" ? value.unavailable : null;
      return [make("dt", name), make("dd", why ?? value, why ? "why" : "")];
    });
    $("detail-facts").replaceChildren(...nodes);
  };
  const refreshDetail = async () => {
    const { pid } = selected;
    try {
      const history = await get(`api/history?pid=${pid}`);
      if (selected?.pid !== pid) return;
      one = { ...history, plain: true };
      plotsOfOne.forEach((plot) => plot.draw());
      const full = await get(`api/processes/${pid}`);
      if (selected?.pid !== pid) return;
      put($("detail-command"), full.full_command);
      const either = (value, text) => (value?.unavailable ? value : text(value));
      const { memory, io, files } = full;
      facts([
        ["Container", full.container],
        ["User", full.user],
        ["Parent", String(full.ppid)],
        ["State", `${full.state}, ${STATES[full.state] ?? ""}`],
        ["Started", new Date(full.started * 1000).toLocaleString()],
        ["CPU time", cpuTime(full.cpu_seconds)],
        ["Threads", String(full.threads)],
        ["Resident", either(memory, (m) => `${size(m.resident)} (${size(m.anonymous)} its own, ${size(m.file)} files, ${size(m.shared)} shared)`)],
        ["Peak", memory.peak === undefined ? undefined : size(memory.peak)],
        ["Swapped", memory.swapped ? size(memory.swapped) : undefined],
        ["From storage", either(io, (i) => `${size(i.read_bytes)} read, ${size(i.write_bytes)} written`)],
        ["By system calls", either(io, (i) => `${size(i.read_call_bytes)} read, ${size(i.write_call_bytes)} written`)],
        ["Gave up the CPU", either(full.switches, (s) => `${plural(s.voluntary, "time", "times")}, lost it ${plural(s.involuntary, "time", "times")}`)],
        ["Program", full.exe?.unavailable ? full.exe : full.exe],
        ["Directory", full.cwd?.unavailable ? full.cwd : full.cwd],
        ["Killed first", full.oom_score?.unavailable ? full.oom_score : `score ${full.oom_score} of 2000 when memory is short`],
      ]);
      const title = files.unavailable ? "Open files" : `Open files: ${files.count}${files.limit ? ` of ${files.limit}` : ""}, ${plural(files.sockets, "socket", "sockets")}`;
      put($("detail-files-title"), title);
      const items = files.unavailable ? [make("p", files.unavailable, "why")] : files.list.map((file) => {
        const item = make("li");
        item.append(make("span", String(file.fd), "muted"), make("span", file.target));
        return item;
      });
      $("detail-files").replaceChildren(...items);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      facts([["Now", { unavailable: error.message }]]);
      $("detail-files").replaceChildren();
      put($("detail-files-title"), "");
    }
  };

  // ---- hands -------------------------------------------------------------------------------------------------
  $("filter").addEventListener("input", () => draw());
  const toggle = (button, change) => button.addEventListener("click", () => {
    button.setAttribute("aria-pressed", String(change()));
    draw();
  });
  toggle($("group"), () => (grouped = !grouped));
  toggle($("tree"), () => (tree = !tree));
  $("live").addEventListener("click", unpin);
  $("detail-close").addEventListener("click", deselect);
  for (const head of $("processes").tHead.rows[0].cells) {
    head.querySelector("button").addEventListener("click", () => {
      const { key } = head.dataset;
      descending = key === sortKey ? !descending : Boolean(FIRST_DESCENDING[key]);
      sortKey = key;
      draw();
    });
  }
  const table = $("processes").tBodies[0];
  table.addEventListener("click", (event) => {
    const row = event.target.closest("tr[data-pid]");
    if (row && getSelection().type !== "Range") select(Number(row.dataset.pid));
  });
  table.addEventListener("keydown", (event) => {
    const row = event.target.closest("tr[data-pid]");
    if (!row) return;
    const rows = [...table.querySelectorAll("tr[data-pid]")];
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (event.key === "Enter" || event.key === " ") select(Number(row.dataset.pid));
    else if (step) {
      const next = rows[rows.indexOf(row) + step];
      if (next) {
        rows.forEach((other) => (other.tabIndex = -1));
        next.tabIndex = 0;
        next.focus();
      }
    } else return;
    event.preventDefault();
  });
  addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      if (selected) deselect();
      else if (pinned !== null) unpin();
    } else if (event.key === "/" && event.target === document.body) {
      $("filter").focus();
      event.preventDefault();
    }
  });
  addEventListener("hashchange", () => { recall(); draw(); });
  addEventListener("resize", () => draw());
  document.addEventListener("visibilitychange", () => { if (!document.hidden) tick(); });
  recall();
  loop();
})();
