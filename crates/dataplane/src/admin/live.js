// Fetches the changing part of the page every two seconds while the page is looked at.
(() => {
  const live = document.getElementById("live"), gone = document.getElementById("gone");
  setInterval(async () => {
    if (document.hidden || getSelection().type === "Range") return;
    try {
      const answer = await fetch("/?part=sections", { cache: "no-store" });
      live.innerHTML = await answer.text();
      gone.hidden = true;
    } catch {
      gone.hidden = false;
    }
  }, 2000);
})();
