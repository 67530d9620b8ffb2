// Asks for /limited?format=json each second while the page is looked at.
(() => {
  "use strict";
  const $ = (id) => document.getElementById(id);
  let last = null; // {at, rules: Map(name -> rule)}

  const cell = (text, kind) => {
    const td = document.createElement("td");
    td.textContent = text;
    if (kind) td.className = kind;
    return td;
  };

  const fill = (id, rows) => {
    const body = rows.map((cells) => {
      const row = document.createElement("tr");
      row.append(...cells);
      return row;
    });
    document.querySelector(`#${id} tbody`).replaceChildren(...body);
  };

  const show = ({ limited, rules, problem }) => {
    const at = performance.now();
    const rate = (rule, what) => {
      const before = last?.rules.get(rule.name);
      return before ? Math.max(0, ((rule[what] - before[what]) * 1000) / (at - last.at)).toFixed(1) : "";
    };
    fill("limited", limited.map((one) => [
      cell(one.key), cell(one.shadow ? `${one.rule} (shadow)` : one.rule), cell(one.allowed, "num"),
      cell(one.denied, "num"), cell(`${one.since_seconds} s`, "num"), cell(`${one.last_seconds} s ago`, "num"),
    ]));
    fill("rules", rules.map((rule) => [
      cell(rule.name), cell(rate(rule, "allowed"), "num"), cell(rate(rule, "limited"), "num"),
      cell(rule.allowed, "num"), cell(rule.limited, "num"), cell(rule.shadow, "num"), cell(rule.rule),
    ]));
    last = { at, rules: new Map(rules.map((rule) => [rule.name, rule])) };
    $("status").textContent = limited.length ? "limiting" : "nobody is limited";
    $("status").className = "state good";
    $("summary").textContent = `${limited.length} keys were refused within the last minute`;
    $("problem").hidden = !problem;
    $("problem").textContent = problem ?? "";
  };

  const ask = async () => {
    if (document.hidden) return;
    try {
      const answer = await fetch("/limited?format=json", { cache: "no-store" });
      if (!answer.ok) throw new Error(String(answer.status));
      show(await answer.json());
    } catch {
      $("status").textContent = "podkit doesn't answer";
      $("status").className = "state bad";
    }
  };
  ask();
  setInterval(ask, 1000);
})();
