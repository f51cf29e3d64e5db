// Runs and their pictures: this page's own, from the page or from files beside it, the one that the page compares with it, and
// another report's that a reader opens.
// A report of somebody else may hold anything: names go to textContent alone, sizes are bounded, pictures are WebP.
"use strict";
const IGNORE = 255;
const FORMAT = "excel-explorer/1";
const MAX_SIDE = 2048; // pixels of a picture
const KEPT_PICTURES = 60; // of a run, unpacked

class Run {
  // text: the JSON of `explorer-data`; readPicture: an image's number → a promise of the JSON of its pictures; label: what titles
  // and numbers call the run, "" for one alone.
  constructor(text, readPicture, label = null) {
    const content = JSON.parse(text);
    if (content.format !== FORMAT || !Array.isArray(content.images)) throw new Error(`the data are not ${FORMAT}`);
    this.title = String(content.title);
    this.label = label ?? String(content.name ?? "");
    this.names = content.classes.map(String);
    this.palette = content.palette;
    this.heat = bytesOf(content.heat);
    this.kinds = new Map(Object.entries(content.kinds));
    this.threshold = Number(content.threshold);
    this.beside = Boolean(content.beside);
    this.images = content.images.map((image, number) => new ExploredImage(image, number));
    this.readPicture = readPicture;
    this.kept = new Map();
    this.byName = new Map();
    for (const image of this.images) this.byName.set(image.id, image); // an image of several splits: any of them,
    for (const image of this.images) this.byName.set(`${image.split}\n${image.id}`, image); // unless the split fits
  }

  name(value) {
    return this.names[value] ?? `class ${value}`;
  }

  // The title of a label map of this run.
  titleOf(kind) {
    return this.label ? `${this.label}: ${this.kinds.get(kind)}` : this.kinds.get(kind);
  }

  // The same image in this run as `image` of another.
  same(image) {
    return this.byName.get(`${image.split}\n${image.id}`) ?? this.byName.get(image.id);
  }

  // A promise of the unpacked pictures of an image.
  picture(image) {
    if (!this.kept.has(image.number)) {
      const promise = this.readPicture(image.number).then(unpacked);
      this.kept.set(image.number, promise);
      if (this.kept.size > KEPT_PICTURES) this.kept.delete(this.kept.keys().next().value);
    }
    return this.kept.get(image.number);
  }
}

class ExploredImage {
  constructor(row, number) {
    this.number = number;
    this.id = String(row.id);
    this.split = String(row.split);
    this.labels = row.labels.map(Number);
    this.kinds = Object.keys(row.scores); // in the order in which they are made
    this.scores = new Map(Object.entries(row.scores));
  }

  // The label map to start with: the last one that has a score, else the last one.
  get lastKind() {
    return this.kinds.findLast((kind) => this.scores.get(kind)) ?? this.kinds.at(-1);
  }

  // The kind asked for; "": the last. undefined: the image has no such label map.
  kind(asked) {
    if (asked === "") return this.lastKind;
    return this.scores.has(asked) ? asked : undefined;
  }

  // IoU in [0, 1] of a kind of label map, of one class or (value 0) of the foreground; null: undefined or not scored.
  iou(kind, value) {
    const score = this.scores.get(kind);
    if (!score) return null;
    return value ? score.classes[value] ?? null : score.iou;
  }

  // Whether the image's labels, its truth or a label map of the kind hold the class.
  holds(kind, value) {
    return this.labels.includes(value) || this.scores.get(kind)?.classes[value] !== undefined;
  }
}

// The run of this page.
function ownRun() {
  const pictures = document.getElementsByClassName("picture-data");
  const run = new Run(document.getElementById("explorer-data").textContent, async (number) => {
    if (!run.beside) return pictures[number].textContent;
    if (location.protocol === "file:") throw new Error("a browser reads no file beside a page that lies on the disk");
    const answer = await fetch(`images/${number}.json`);
    if (!answer.ok) throw new Error(`images/${number}.json: ${answer.status}`);
    return answer.text();
  });
  return run;
}

// The run that this page compares with its own; null on a page of one run.
function pairedRun() {
  const data = document.getElementById("paired-data");
  const pictures = document.getElementsByClassName("paired-picture-data");
  return data && new Run(data.textContent, async (number) => pictures[number].textContent);
}

// The run of another report: its index.html, and of a large one the files of its folder images too.
async function runOfFiles(files) {
  const page = files.find((file) => file.name.endsWith(".html"));
  if (!page) throw new Error("choose the report's index.html");
  // Nothing in a parsed document runs or is loaded.
  const parsed = new DOMParser().parseFromString(await page.text(), "text/html");
  const data = parsed.getElementById("explorer-data");
  if (!data) throw new Error(`${page.name} is no report of excel with images`);
  const pictures = [...parsed.getElementsByClassName("picture-data")].map((element) => element.textContent);
  const beside = new Map(files.map((file) => [file.name, file]));
  return new Run(data.textContent, async (number) => {
    if (pictures[number] !== undefined) return pictures[number];
    const file = beside.get(`${number}.json`);
    if (!file) throw new Error(`${number}.json was not chosen: choose the files of the report's folder images too`);
    return file.text();
  }, "other run");
}

// JSON of an image → {width, height, photo, maps, truth, cams}, arrays as Uint8Array; photo: null where the run beside has it.
async function unpacked(text) {
  const raw = JSON.parse(text);
  const [width, height] = [checkedSide(raw.width), checkedSide(raw.height)];
  const photo = raw.photo === null ? null : new Image();
  if (photo) {
    photo.src = `data:image/webp;base64,${raw.photo}`;
    await photo.decode();
  }
  const maps = new Map();
  for (const [kind, packed] of Object.entries(raw.maps)) maps.set(kind, await inflated(packed, width * height));
  const truth = raw.truth === null ? null : await inflated(raw.truth, width * height);
  const cams = [];
  for (const cam of raw.cams) {
    const [w, h] = [checkedSide(cam.width), checkedSide(cam.height)];
    cams.push({ value: Number(cam.value), width: w, height: h, values: await inflated(cam.cam, w * h) });
  }
  return { width, height, photo, maps, truth, cams };
}

function checkedSide(side) {
  if (!Number.isInteger(side) || side < 1 || side > MAX_SIDE) throw new Error(`a picture with a side of ${side} pixels`);
  return side;
}

function bytesOf(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

// zlib in base64 → exactly `length` bytes; never more is unpacked.
async function inflated(text, length) {
  const reader = new Blob([bytesOf(text)]).stream().pipeThrough(new DecompressionStream("deflate")).getReader();
  const result = new Uint8Array(length);
  let filled = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    if (filled + value.length > length) {
      await reader.cancel();
      throw new Error(`an array is longer than ${length} bytes`);
    }
    result.set(value, filled);
    filled += value.length;
  }
  if (filled !== length) throw new Error(`an array has ${filled} bytes, not ${length}`);
  return result;
}
