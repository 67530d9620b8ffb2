// The upstreams; keeps the last minutes of them, and plots them.
(() => {
  "use strict";
  const { $, cell, fill, say, follow } = page;
  const KEPT = 300, WIDTH = 600, HEIGHT = 120;
  // Distinct for eight; the ninth begins again.
  const COLOURS = ["#3b82f6", "#f59e0b", "#10b981", "#ef4444", "#8b5cf6", "#06b6d4", "#d946ef", "#84cc16"];
  const past = []; // {at, seen: Map(name -> {rate, flight})}
  const colours = new Map();
  let last = null;

  const colour = (name) => {
    if (!colours.has(name)) colours.set(name, COLOURS[colours.size % COLOURS.length]);
    return colours.get(name);
  };

  const take = (upstreams, at) => {
    const seen = new Map();
    for (const one of upstreams) {
      const before = last?.counts.get(one.name);
      const seconds = last ? (at - last.at) / 1000 : 0;
      const count = one.answered + one.failed;
      const rate = before === undefined || seconds <= 0 ? 0 : Math.max(0, count - before) / seconds;
      seen.set(one.name, { rate, flight: one.in_flight });
    }
    last = { at, counts: new Map(upstreams.map((one) => [one.name, one.answered + one.failed])) };
    past.push({ at, seen });
    if (past.length > KEPT) past.shift();
    return seen;
  };

  const plot = (svg, measure) => {
    const names = [...new Set(past.flatMap((one) => [...one.seen.keys()]))];
    const most = Math.max(1, ...past.flatMap((one) => [...one.seen.values()].map((it) => it[measure])));
    const lines = names.map((name) => {
      const points = past.flatMap((one, at) => {
        const it = one.seen.get(name);
        const x = WIDTH - ((past.length - 1 - at) * WIDTH) / (KEPT - 1);
        return it ? [`${x.toFixed(1)},${(HEIGHT - 2 - (it[measure] / most) * (HEIGHT - 6)).toFixed(1)}`] : [];
      });
      const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
      line.setAttribute("points", points.join(" "));
      line.setAttribute("stroke", colour(name));
      line.dataset.upstream = name;
      return line;
    });
    svg.replaceChildren(...lines);
  };

  const show = ({ upstreams, problems, panic }) => {
    if (panic && upstreams.length) problems = ["too few upstreams take requests, so that all are used", ...problems];
    const seen = take(upstreams, performance.now());
    fill("upstreams", upstreams.map((one) => {
      const name = cell(""), dot = document.createElement("span"), state = cell(one.state);
      dot.className = "dot";
      dot.style.background = colour(one.name);
      name.append(dot, one.name);
      state.dataset.state = one.state;
      return [
        name, state, cell(one.reason), cell(one.weight, "num"), cell(one.priority, "num"),
        cell(seen.get(one.name).rate.toFixed(1), "num"), cell(one.in_flight, "num"),
        cell(one.answered, "num"), cell(one.failed, "num"),
      ];
    }));
    const ready = upstreams.filter((one) => one.state === "ready" || one.state === "warming").length;
    const word = ready ? "ready" : "no upstream is ready";
    say(word, ready, `${ready} of ${upstreams.length} upstreams take requests`, problems.join("; "));
    const sum = (of) => [...seen.values()].reduce((all, it) => all + it[of], 0);
    $("rate").textContent = sum("rate").toFixed(1);
    $("flight").textContent = sum("flight");
    plot($("plot-rate"), "rate");
    plot($("plot-flight"), "flight");
  };

  follow("/upstreams", show);
})();
