// Who is limited now, and what the rules do. In a chain each belongs to a stage.
(() => {
  "use strict";
  const { cell, fill, say, follow } = page;
  let last = null; // {at, rules: Map(name -> rule)}

  const named = (stage, rule) => (stage === undefined ? rule : `${stage}: ${rule}`);

  const show = ({ limited, rules, problem }) => {
    const at = performance.now();
    const rate = (rule, what) => {
      const before = last?.rules.get(named(rule.stage, rule.name));
      return before ? Math.max(0, ((rule[what] - before[what]) * 1000) / (at - last.at)).toFixed(1) : "";
    };
    fill("limited", limited.map((one) => [
      cell(one.key), cell(named(one.stage, one.rule) + (one.shadow ? " (shadow)" : "")), cell(one.allowed, "num"),
      cell(one.denied, "num"), cell(`${one.since_seconds} s`, "num"), cell(`${one.last_seconds} s ago`, "num"),
    ]));
    fill("rules", rules.map((rule) => [
      cell(named(rule.stage, rule.name)), cell(rate(rule, "allowed"), "num"), cell(rate(rule, "limited"), "num"),
      cell(rule.allowed, "num"), cell(rule.limited, "num"), cell(rule.shadow, "num"), cell(rule.rule),
    ]));
    last = { at, rules: new Map(rules.map((rule) => [named(rule.stage, rule.name), rule])) };
    const word = limited.length ? "limiting" : "nobody is limited";
    say(word, true, `${limited.length} keys were refused within the last minute`, problem);
  };

  follow("/limited?format=json", show);
})();
