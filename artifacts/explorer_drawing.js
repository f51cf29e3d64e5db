// Pictures on canvases: photo, label maps, errors and activation maps, with thin outlines and names, so that neither a class nor
// an edge depends on colour alone.

const CAM_WEIGHT = 0.65; // of the colour map over the grey photo
const PALE = 0.45; // of white over pixels that no score counts
// Okabe-Ito without black. Class 8 has the colour of class 1 and another pattern.
const SAFE = [[230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66], [0, 114, 178], [213, 94, 0], [204, 121, 167]];
const PATTERNS = ["plain", "rising", "falling", "level", "upright", "dots"];
const ERRORS = {
  missed: { colour: [0, 114, 178], pattern: "rising", words: "missed" },
  false: { colour: [230, 159, 0], pattern: "falling", words: "false" },
  wrong: { colour: [204, 121, 167], pattern: "dots", words: "another class" },
};

const isClass = (value) => value !== 0 && value !== IGNORE;

// The photo on a canvas. size: its least width, `canvas`, the width at which it is `shown`, and the height of `letters` there
// → its context, the canvas's pixels per pixel of the picture (`scale`) and per pixel of the page (`unit`).
function startPicture(canvas, picture, size) {
  const scale = Math.max(1, Math.ceil(size.canvas / picture.width));
  canvas.width = picture.width * scale;
  canvas.height = picture.height * scale;
  const context = canvas.getContext("2d");
  context.drawImage(picture.photo, 0, 0, canvas.width, canvas.height);
  return { context, scale, unit: canvas.width / size.shown };
}

function drawPhoto(canvas, picture, size) {
  startPicture(canvas, picture, size);
}

// A label map; style: {opacity in [0, 1], safe: whether colours are the colour-blind safe ones}.
function drawLabels(canvas, picture, labels, run, style, size) {
  const { context, scale, unit } = startPicture(canvas, picture, size);
  const values = [...new Set(labels)].filter(isClass);
  const looks = new Map(values.map((value) => [value, lookOf(value, run, style.safe)]));
  paintRegions(context, picture, labels, looks, style.opacity, unit);
  strokeEdges(context, edges(labels, picture.width, picture.height, scale), unit);
  writeNames(context, labels, picture.width, picture.height, scale, unit * size.letters, (value) => run.name(value));
}

// The mistakes of a label map, over the truth's outlines.
function drawErrors(canvas, picture, labels, opacity, size) {
  drawMarks(canvas, picture, Array.from(labels, (label, pixel) => mistake(label, picture.truth[pixel])), ERRORS, opacity, size);
}

// Pixels in the look of their mark, a name of `looks` or "", over the outlines of the truth, where there is one.
function drawMarks(canvas, picture, marks, looks, opacity, size) {
  const { context, scale, unit } = startPicture(canvas, picture, size);
  const names = Object.keys(looks);
  const values = Uint8Array.from(marks, (mark) => names.indexOf(mark) + 1);
  paintRegions(context, picture, values, new Map(names.map((name, place) => [place + 1, looks[name]])), opacity, unit);
  strokeEdges(context, edges(picture.truth ?? values, picture.width, picture.height, scale), unit);
}

// Each look's colour and pattern with its words.
function legendOf(looks) {
  const legend = element("span", "error-legend", "");
  for (const look of Object.values(looks)) {
    const chip = document.createElement("canvas");
    [chip.width, chip.height] = [28, 14];
    chip.setAttribute("aria-hidden", "true");
    const context = chip.getContext("2d");
    context.fillStyle = `rgb(${look.colour.join(" ")})`;
    context.fillRect(0, 0, 28, 14);
    context.fillStyle = context.createPattern(tile(look.pattern, 10), "repeat");
    context.fillRect(0, 0, 28, 14);
    legend.append(chip, ` ${look.words} `);
  }
  return legend;
}

// The activation map at `place`, over the grey photo; with a threshold, the outline of what lies above it.
function drawCam(canvas, picture, place, run, threshold, size) {
  const { context, scale, unit } = startPicture(canvas, picture, size);
  context.globalCompositeOperation = "saturation"; // greys the photo without reading its pixels
  context.fillStyle = "hsl(0 0% 50%)";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.globalCompositeOperation = "source-over";
  const levels = fullCams(picture)[place];
  const colours = (pixel) => {
    const start = Math.round(levels[pixel] * 255) * 3;
    return [run.heat[start], run.heat[start + 1], run.heat[start + 2], 255 * CAM_WEIGHT];
  };
  context.drawImage(layer(picture, colours), 0, 0, canvas.width, canvas.height);
  if (threshold !== null) {
    strokeEdges(context, edges(maskAt(picture, place, threshold), picture.width, picture.height, scale), unit);
  }
}

// {colour, pattern} of a class.
function lookOf(value, run, safe) {
  if (!safe) return { colour: run.palette[value] ?? [128, 128, 128], pattern: "plain" };
  const place = value - 1;
  return { colour: SAFE[place % SAFE.length], pattern: PATTERNS[Math.floor(place / SAFE.length) % PATTERNS.length] };
}

// A canvas of the picture's size; colours: pixel → [red, green, blue, alpha] in 0..255, or nothing.
function layer(picture, colours) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [picture.width, picture.height];
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(picture.width, picture.height);
  for (let pixel = 0; pixel < picture.width * picture.height; pixel++) {
    const colour = colours(pixel);
    if (colour) pixels.data.set(colour, pixel * 4);
  }
  context.putImageData(pixels, 0, 0);
  return canvas;
}

// Each region in the colour and pattern of its value; what is ignored pale.
function paintRegions(context, picture, labels, looks, opacity, unit) {
  const { width, height } = context.canvas;
  context.imageSmoothingEnabled = false;
  const colours = (pixel) => {
    const look = looks.get(labels[pixel]);
    if (look) return [...look.colour, 255 * opacity];
    return labels[pixel] === IGNORE ? [255, 255, 255, 255 * PALE] : null;
  };
  context.drawImage(layer(picture, colours), 0, 0, width, height);
  for (const [value, look] of looks) {
    if (look.pattern === "plain") continue;
    const hatched = document.createElement("canvas");
    [hatched.width, hatched.height] = [width, height];
    const own = hatched.getContext("2d");
    own.imageSmoothingEnabled = false;
    own.drawImage(layer(picture, (pixel) => (labels[pixel] === value ? [0, 0, 0, 255] : null)), 0, 0, width, height);
    own.globalCompositeOperation = "source-in";
    own.fillStyle = own.createPattern(tile(look.pattern, Math.round(9 * unit)), "repeat");
    own.fillRect(0, 0, width, height);
    context.drawImage(hatched, 0, 0);
  }
  context.imageSmoothingEnabled = true;
}

// A square tile of a pattern, dark and light lines side by side, to be seen on any colour.
function tile(pattern, side) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = side;
  const context = canvas.getContext("2d");
  for (const [colour, shift] of [["rgb(0 0 0 / 55%)", 0], ["rgb(255 255 255 / 55%)", side / 6]]) {
    context.strokeStyle = context.fillStyle = colour;
    context.lineWidth = side / 8;
    context.beginPath();
    if (pattern === "dots") context.arc(side / 2 + shift, side / 2 + shift, side / 6, 0, 7);
    for (const start of [-side, 0, side]) {
      if (pattern === "rising") line(context, start + shift, side, start + side + shift, 0);
      if (pattern === "falling") line(context, start + shift, 0, start + side + shift, side);
    }
    if (pattern === "level") line(context, 0, side / 2 + shift, side, side / 2 + shift);
    if (pattern === "upright") line(context, side / 2 + shift, 0, side / 2 + shift, side);
    if (pattern === "dots") context.fill();
    else context.stroke();
  }
  return canvas;
}

function line(context, x, y, toX, toY) {
  context.moveTo(x, y);
  context.lineTo(toX, toY);
}

// Every edge between two labels of which one at least is a class, as a path in the canvas's pixels.
function edges(labels, width, height, scale) {
  const path = new Path2D();
  const differ = (a, b) => a !== b && (isClass(a) || isClass(b));
  for (let y = 1; y < height; y++) {
    runs(width, (x) => differ(labels[(y - 1) * width + x], labels[y * width + x]), (from, to) => {
      line(path, from * scale, y * scale, to * scale, y * scale);
    });
  }
  for (let x = 1; x < width; x++) {
    runs(height, (y) => differ(labels[y * width + x - 1], labels[y * width + x]), (from, to) => {
      line(path, x * scale, from * scale, x * scale, to * scale);
    });
  }
  return path;
}

// Calls `each` with every longest range [from, to) of 0..count in which `holds`.
function runs(count, holds, each) {
  let from = -1;
  for (let place = 0; place <= count; place++) {
    const inside = place < count && holds(place);
    if (inside && from < 0) from = place;
    if (!inside && from >= 0) {
      each(from, place);
      from = -1;
    }
  }
}

// A thin white line in a thin dark one: to be seen on any colour.
function strokeEdges(context, path, unit) {
  context.lineCap = "square";
  for (const [colour, thickness] of [["rgb(0 0 0 / 80%)", 2.4], ["#fff", 1]]) {
    context.strokeStyle = colour;
    context.lineWidth = thickness * unit;
    context.stroke(path);
  }
}

// Each class's name where its region is deepest, unless it would not fit or cover another: the words below name every class.
function writeNames(context, labels, width, height, scale, size, name) {
  context.font = `600 ${size}px system-ui, "DejaVu Sans", sans-serif`;
  [context.textAlign, context.textBaseline, context.lineJoin] = ["center", "middle", "round"];
  const taken = [];
  for (const { value, x, y, depth } of deepestPoints(labels, width, height)) {
    const half = context.measureText(name(value)).width / 2 + 2;
    if (depth * scale < size * 0.6 || 2 * half > context.canvas.width) continue;
    const left = Math.min(Math.max((x + 0.5) * scale, half), context.canvas.width - half);
    const top = Math.min(Math.max((y + 0.5) * scale, size * 0.7), context.canvas.height - size * 0.7);
    if (taken.some((other) => Math.abs(other.left - left) < other.half + half && Math.abs(other.top - top) < size * 1.1)) continue;
    taken.push({ left, top, half });
    [context.lineWidth, context.strokeStyle, context.fillStyle] = [size / 4.5, "#000", "#fff"];
    context.strokeText(name(value), left, top);
    context.fillText(name(value), left, top);
  }
}

// The point of each class that is farthest from another label or the border, in steps from pixel to pixel; the deepest first.
function deepestPoints(labels, width, height) {
  const depth = new Uint16Array(labels.length);
  const step = (pixel, neighbour, inside) => (inside && labels[neighbour] === labels[pixel] ? depth[neighbour] : 0) + 1;
  const best = new Map();
  for (let pixel = 0; pixel < labels.length; pixel++) {
    const x = pixel % width;
    depth[pixel] = Math.min(step(pixel, pixel - 1, x > 0), step(pixel, pixel - width, pixel >= width));
  }
  for (let pixel = labels.length - 1; pixel >= 0; pixel--) {
    const x = pixel % width;
    const after = Math.min(step(pixel, pixel + 1, x < width - 1), step(pixel, pixel + width, pixel + width < labels.length));
    depth[pixel] = Math.min(depth[pixel], after);
    const value = labels[pixel];
    if (isClass(value) && depth[pixel] > (best.get(value)?.depth ?? 0)) {
      best.set(value, { value, x, y: Math.floor(pixel / width), depth: depth[pixel] });
    }
  }
  return [...best.values()].sort((a, b) => b.depth - a.depth);
}
