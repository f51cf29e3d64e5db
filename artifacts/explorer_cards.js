// The cards: which images are shown, in which order, with which number, and their small pictures.

const CARDS_AT_ONCE = 24;
const CARD_SIZE = { canvas: 340, shown: 170, letters: 12 }; // of a small picture: least width, width on the page, letters
const MAX_CARD_CAMS = 3;

const percent = (share) => (share > 0 && share < 0.001 ? "< 0.1 %" : `${(100 * share).toFixed(share > 0 && share < 0.095 ? 1 : 0)} %`);
const decimals = (iou) => (iou === null ? "–" : iou.toFixed(3));

// What the controls ask for.
function readControls() {
  const value = (id) => document.getElementById(id).value;
  return {
    kind: value("kind"), split: value("split"), class: Number(value("class")), mistakes: value("mistakes"), order: value("order"),
    style: { safe: value("colours") === "safe", opacity: Number(value("opacity")) / 100 },
  };
}

// The other run's image and label map beside one of this run; undefined where it has none.
function counterpart(other, image, kind) {
  const same = other?.same(image);
  const sameKind = same && (same.kind(kind) ?? same.lastKind);
  return sameKind && { run: other, image: same, kind: sameKind };
}

// {image, kind, iou, beside, otherIou, gain}: an image's label map, its number, and the other run's.
function rowOf(run, other, image, kind, value) {
  const iou = image.iou(kind, value);
  const beside = counterpart(other, image, kind);
  const otherValue = value && other ? other.names.indexOf(run.name(value)) : 0;
  const otherIou = beside && otherValue >= 0 ? beside.image.iou(beside.kind, otherValue) : null;
  return { image, kind, iou, beside, otherIou, gain: iou === null || otherIou === null ? null : iou - otherIou };
}

// Rows of the images that the controls ask for, in order.
function chosenRows(run, other, asked) {
  const rows = [];
  for (const image of run.images) {
    const kind = image.kind(asked.kind);
    if (!kind || (asked.split && image.split !== asked.split)) continue;
    if (asked.class && !image.holds(kind, asked.class)) continue;
    if (!hasMistakes(image.scores.get(kind), asked.mistakes)) continue;
    rows.push(rowOf(run, other, image, kind, asked.class));
  }
  return ordered(rows, asked.order);
}

function hasMistakes(score, asked) {
  if (asked === "") return true;
  if (!score) return false;
  if (asked === "none") return score.missed.length + score.false.length === 0;
  return score[asked].length > 0;
}

// By the number that the cards show; rows without it last.
function ordered(rows, order) {
  const byName = (a, b) => (a.image.id < b.image.id ? -1 : a.image.id > b.image.id ? 1 : 0);
  const by = (number, sign) => (a, b) => {
    const [left, right] = [number(a), number(b)];
    if (left === null || right === null) return (left === null) - (right === null) || byName(a, b);
    return sign * (left - right) || byName(a, b);
  };
  const orders = {
    worst: by((row) => row.iou, 1),
    best: by((row) => row.iou, -1),
    name: byName,
    classes: (a, b) => (a.image.labels[0] ?? 0) - (b.image.labels[0] ?? 0) || by((row) => row.iou, 1)(a, b),
    change: by((row) => row.gain && Math.abs(row.gain), -1),
    gain: by((row) => row.gain, -1),
    loss: by((row) => row.gain, 1),
  };
  if (order !== "median") return rows.sort(orders[order]);
  rows.sort(orders.worst);
  const middle = (rows.filter((row) => row.iou !== null).length - 1) / 2;
  const distance = new Map(rows.map((row, place) => [row, row.iou === null ? Infinity : Math.abs(place - middle)]));
  return rows.sort((a, b) => distance.get(a) - distance.get(b) || orders.worst(a, b));
}

// The card of a row; its pictures are drawn once it is near the window.
function makeCard(run, row, asked, open) {
  const card = fromTemplate("card");
  const { image, kind } = row;
  card.querySelector(".id").textContent = image.id;
  card.querySelector(".split").textContent = image.split;
  card.querySelector(".labels").textContent = image.labels.map((value) => run.name(value)).join(", ");
  fillBadges(card.querySelector(".badges"), run, row, asked.class);
  const button = card.querySelector(".open");
  button.setAttribute("aria-label", `Open ${image.id}`);
  button.addEventListener("click", () => open(row));
  card.querySelector(".panels").addEventListener("click", () => open(row)); // for a mouse; keys have the button
  card.draw = () => drawCard(card.querySelector(".panels"), run, row, asked);
  return card;
}

// The number that cards are ordered by, that of the other run, and the classes that were missed or falsely seen.
function fillBadges(place, run, row, value) {
  const { image, kind } = row;
  const what = value ? `IoU of ${run.name(value)}` : "foreground IoU";
  const score = image.scores.get(kind);
  const own = score ? `${what} ${decimals(row.iou)}` : "not scored";
  const badges = [["iou", run.label ? `${run.label}: ${own}` : own]];
  if (row.beside) {
    const gain = row.gain === null ? "" : ` (${row.gain >= 0 ? "+" : "−"}${Math.abs(row.gain).toFixed(3)})`;
    badges.push(["other", `${row.beside.run.label} ${decimals(row.otherIou)}${gain}`]);
  }
  for (const missed of score?.missed ?? []) badges.push(["missed", `missed: ${run.name(missed)}`]);
  for (const falsely of score?.false ?? []) badges.push(["false", `false: ${run.name(falsely)}`]);
  place.replaceChildren(...badges.map(([kind, text]) => element("span", `badge ${kind}`, text)));
}

// A copy of a template's element, imported: in the template's own document a canvas has no fonts.
function fromTemplate(id) {
  return document.importNode(document.getElementById(id).content, true).firstElementChild;
}

function element(tag, className, text) {
  const result = document.createElement(tag);
  result.className = className;
  result.textContent = text;
  return result;
}

// The label map, the other run's, where they differ, the truth, and activation maps. Of two runs that a page compares, the photo
// and the truth come first.
async function drawCard(place, run, row, asked) {
  const { image, kind } = row;
  let picture;
  try {
    picture = await run.picture(image);
  } catch (error) {
    showTrouble(run, error);
    place.replaceChildren(drawnPicture(run, image, kind));
    return;
  }
  const own = labelPanel(run.titleOf(kind), image, picture, picture.maps.get(kind), run, asked.style, CARD_SIZE);
  const beside = row.beside ? await besidePanels(run, row, picture, asked.style, CARD_SIZE) : [];
  const truth = picture.truth ? [labelPanel("truth", image, picture, picture.truth, run, asked.style, CARD_SIZE)] : [];
  const panels = run.label
    ? [photoPanel(image, picture, CARD_SIZE), ...truth, ...beside.slice(0, 1), own, ...beside.slice(1)]
    : [own, ...beside, ...truth];
  const cams = picture.cams.map((cam, number) => ({ value: cam.value, number }));
  cams.sort((a, b) => (b.value === asked.class) - (a.value === asked.class)); // the class asked for comes first
  for (const { value, number } of cams.slice(0, MAX_CARD_CAMS)) {
    const name = run.name(value);
    const { figure, canvas } = makePanel(`CAM: ${name}`, "", `activation map of ${name} on image ${image.id}`);
    drawCam(canvas, picture, number, run, null, CARD_SIZE);
    panels.push(figure);
  }
  place.replaceChildren(...panels);
}

// A figure with a title, a canvas and words below it. The words stand in for the picture.
function makePanel(title, words, says) {
  const figure = fromTemplate("panel");
  const canvas = figure.querySelector("canvas");
  figure.querySelector(".title").textContent = title;
  figure.querySelector(".words").textContent = words;
  canvas.setAttribute("aria-label", says);
  return { figure, canvas };
}

function labelPanel(title, image, picture, labels, run, style, size) {
  const words = sharesInWords(labels, run);
  const { figure, canvas } = makePanel(title, words, `${title} of image ${image.id}: ${words}`);
  drawLabels(canvas, picture, labels, run, style, size);
  return figure;
}

function photoPanel(image, picture, size) {
  const { figure, canvas } = makePanel("photo", "", `image ${image.id}`);
  drawPhoto(canvas, picture, size);
  return figure;
}

// The other run's label map over its own photo, and where it differs from this run's; without its files, words.
async function besidePanels(run, row, picture, style, size) {
  const { run: other, image, kind } = row.beside;
  try {
    const theirs = await otherPicture(row, picture);
    const labels = theirs.maps.get(kind);
    const difference = differencePanel(run, row, picture, translated(labels, theirs, picture, other, run), style, size);
    return [labelPanel(other.titleOf(kind), image, theirs, labels, other, style, size), difference];
  } catch (error) {
    const { figure, canvas } = makePanel(other.titleOf(kind), String(error.message), "");
    canvas.remove();
    return [figure];
  }
}

// The picture of the other run's image; where its data have no photo, with this run's, of which it then is.
async function otherPicture(row, picture) {
  const theirs = await row.beside.run.picture(row.beside.image);
  return { ...theirs, photo: theirs.photo ?? picture.photo };
}

// `horse 23 %, person 4 %`, the largest first: of the pixels that are not ignored.
function sharesInWords(labels, run) {
  const counts = new Map();
  let total = 0;
  for (const value of labels) {
    if (value === IGNORE) continue;
    total++;
    if (value) counts.set(value, (counts.get(value) ?? 0) + 1);
  }
  const parts = [...counts].sort((a, b) => b[1] - a[1]).map(([value, count]) => `${run.name(value)} ${percent(count / total)}`);
  return parts.join(", ") || "only background";
}

// What a page that may not read files shows: the picture that was drawn beside it.
function drawnPicture(run, image, kind) {
  const { figure, canvas } = makePanel(`${run.kinds.get(image.kinds.at(-1))}`, "numbers are classes", "");
  const picture = document.createElement("img");
  picture.loading = "lazy";
  picture.alt = `last label map of image ${image.id}`;
  picture.src = `images/${image.number}.webp`;
  canvas.replaceWith(picture);
  return figure;
}

function showTrouble(run, error) {
  const place = document.getElementById("trouble");
  const folder = decodeURIComponent(location.pathname).replace(/[^/]*$/, "");
  const command = `python -m http.server --bind 127.0.0.1 --directory '${folder}'`;
  const from = location.protocol === "file:" && run.beside;
  place.textContent = from
    ? `This run's ${run.images.length} images lie beside the page, which a browser reads only from a server. For all steps: ${command}`
    : `Pictures cannot be shown: ${error.message}`;
  place.hidden = false;
}
