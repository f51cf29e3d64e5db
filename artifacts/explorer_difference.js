// Where two runs' label maps of an image differ, and which of them is right there.

const UNKNOWN = 254; // a class of the other run that this one has not

// What the panels show, in the looks of errors: this run's gain, its loss, and what neither has right.
function differenceLooks(run, other) {
  const own = run.label || "this run";
  return {
    lost: { ...ERRORS.false, words: `only ${other.label} is right` },
    gained: { ...ERRORS.missed, words: `only ${own} is right` },
    changed: { ...ERRORS.wrong, words: "neither is right" },
  };
}

// Labels of `other` at the size of `to`, by nearest value, with the values that `run` gives to classes of the same name.
function translated(labels, from, to, other, run) {
  const values = Uint8Array.from({ length: 256 }, (_, value) => {
    if (!isClass(value)) return value;
    const same = run.names.indexOf(other.name(value));
    return same > 0 ? same : UNKNOWN;
  });
  const result = new Uint8Array(to.width * to.height);
  for (let y = 0; y < to.height; y++) {
    const row = Math.floor(((y + 0.5) * from.height) / to.height) * from.width;
    for (let x = 0; x < to.width; x++) {
      result[y * to.width + x] = values[labels[row + Math.floor(((x + 0.5) * from.width) / to.width)]];
    }
  }
  return result;
}

// The mark of a pixel; "" where the label maps agree, and where no score counts. Without a truth, nobody is right.
function differenceAt(theirs, own, truth) {
  if (theirs === own || truth === IGNORE) return "";
  if (own === truth) return "gained";
  return theirs === truth ? "lost" : "changed";
}

// theirs: the other run's labels, at the size and with the values of this run's picture.
function differencePanel(run, row, picture, theirs, style, size) {
  const own = picture.maps.get(row.kind);
  const looks = differenceLooks(run, row.beside.run);
  const marks = Array.from(own, (label, pixel) => differenceAt(theirs[pixel], label, picture.truth?.[pixel]));
  const counted = picture.truth ? picture.truth.reduce((sum, value) => sum + (value !== IGNORE), 0) : own.length;
  const share = (mark) => percent(marks.filter((each) => each === mark).length / Math.max(1, counted));
  for (const [mark, look] of Object.entries(looks)) look.words += ` ${share(mark)}`;
  const words = picture.truth
    ? Object.values(looks).map((look) => look.words).join(", ")
    : `differs on ${share("changed")}; no truth says which is right`;
  const { figure, canvas } = makePanel("difference", words, `difference of both label maps of image ${row.image.id}: ${words}`);
  drawMarks(canvas, picture, marks, looks, Math.max(0.35, style.opacity), size);
  if (picture.truth) figure.querySelector(".words").replaceChildren(legendOf(looks));
  return figure;
}
