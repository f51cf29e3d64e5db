// Starts the explorer: fills the controls, and shows cards anew whenever one of them changes.

function startExplorer() {
  const run = ownRun();
  const list = document.querySelector("#images .cards");
  const more = document.getElementById("more");
  const large = new LargeView(run, document.getElementById("large"));
  let [other, rows, asked, shown] = [null, [], null, 0];

  const nearWindow = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      nearWindow.unobserve(entry.target);
      entry.target.draw();
    }
  }, { rootMargin: "300px" });

  const showMore = () => {
    const next = rows.slice(shown, shown + CARDS_AT_ONCE);
    const cards = next.map((row) => makeCard(run, row, asked, (chosen) => large.open(chosen, rows, other, asked)));
    list.append(...cards);
    for (const card of cards) nearWindow.observe(card);
    shown += cards.length;
    more.hidden = shown >= rows.length;
    more.textContent = `Show ${Math.min(CARDS_AT_ONCE, rows.length - shown)} more images`;
    return cards[0];
  };

  const showAnew = () => {
    asked = readControls();
    rows = chosenRows(run, other, asked);
    nearWindow.disconnect();
    list.replaceChildren();
    shown = 0;
    showMore();
    document.getElementById("shown").textContent = summary(run, rows, asked);
  };

  for (const control of document.querySelectorAll("#images > .controls select, #opacity")) {
    control.addEventListener("change", showAnew);
  }
  document.querySelector("#images > .controls").addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", () => showMore()?.querySelector(".open").focus());
  const setOther = (opened, order) => {
    other = opened;
    const orders = document.getElementById("order");
    for (const option of orders.querySelectorAll("[value=change], [value=gain], [value=loss]")) option.hidden = !other;
    orders.value = order;
    for (const button of document.querySelectorAll("#forget")) button.hidden = !other;
    showAnew();
  };
  document.getElementById("other")?.addEventListener("change", async (event) => {
    const trouble = document.getElementById("trouble");
    trouble.hidden = true;
    try {
      if (event.target.files.length) setOther(await runOfFiles([...event.target.files]), "loss");
    } catch (error) {
      trouble.textContent = `The other run cannot be opened: ${error.message}`;
      trouble.hidden = false;
    }
  });
  document.getElementById("forget")?.addEventListener("click", () => {
    document.getElementById("other").value = "";
    setOther(null, "worst");
    document.getElementById("other").focus();
  });

  fillControls(run);
  for (const part of document.querySelectorAll("#images, .by-script")) part.hidden = false;
  const paired = pairedRun();
  setOther(paired, paired ? "change" : "worst");
}

function fillControls(run) {
  const options = (id, first, pairs) => {
    const choices = pairs.map(([value, text]) => new Option(text, value));
    document.getElementById(id).replaceChildren(new Option(first, ""), ...choices);
  };
  const splits = [...new Set(run.images.map((image) => image.split))];
  const held = new Set(run.images.flatMap((image) => [...image.labels, ...classesOf(image)]));
  options("kind", "the last step", [...run.kinds]);
  options("split", "all splits", splits.map((split) => [split, split]));
  options("class", "all classes", [...held].sort((a, b) => a - b).map((value) => [value, run.name(value)]));
}

// Label values that some label map or truth of an image holds.
function classesOf(image) {
  return [...image.scores.values()].flatMap((score) => Object.keys(score?.classes ?? {}).map(Number));
}

// How many images are shown, their median number, and why others are not.
function summary(run, rows, asked) {
  const scored = rows.map((row) => row.iou).filter((iou) => iou !== null).sort((a, b) => a - b);
  const middle = (scored.length - 1) / 2;
  const median = scored.length ? (scored[Math.floor(middle)] + scored[Math.ceil(middle)]) / 2 : null;
  const without = run.images.filter((image) => !image.kind(asked.kind)).length;
  const parts = [`${rows.length} of ${run.images.length} images`];
  if (median !== null) parts.push(`median ${asked.class ? `IoU of ${run.name(asked.class)}` : "foreground IoU"} ${decimals(median)}`);
  if (scored.length < rows.length) parts.push(`${rows.length - scored.length} without a score`);
  if (without) parts.push(`${without} have no such label map`);
  return `${parts.join("; ")}.`;
}

if (document.getElementById("explorer-data")) startExplorer();
